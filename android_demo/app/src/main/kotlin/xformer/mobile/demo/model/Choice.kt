package xformer.mobile.demo.model

import xformer.mobile.EngineChoice
import xformer.mobile.core.Accelerator

/**
 * What the user has chosen to run.
 *
 * @property bundle a bundle's name; null: the first one.
 * @property accelerator null: the engine's own way on the CPU.
 * @property threads null: the engine's own choice.
 */
data class Choice(
    val bundle: String? = null,
    val engine: EngineChoice = EngineChoice.AUTO,
    val accelerator: Accelerator? = null,
    val threads: Int? = null,
) {
    /** As it is stored: words by name. */
    fun toMap(): Map<String, String> = buildMap {
        bundle?.let { put(BUNDLE, it) }
        put(ENGINE, engine.name)
        accelerator?.let { put(ACCELERATOR, it.id) }
        threads?.let { put(THREADS, it.toString()) }
    }

    companion object {
        /** The numbers of threads that can be chosen. */
        val THREADS_VALID: IntRange = 1..64

        private const val BUNDLE = "bundle"
        private const val ENGINE = "engine"
        private const val ACCELERATOR = "accelerator"
        private const val THREADS = "threads"

        /** Of what was stored, perhaps by another version of the app: what can't be read is as if it were not there. */
        fun of(stored: Map<String, *>): Choice {
            val default = Choice()
            return Choice(
                bundle = (stored[BUNDLE] as? String)?.takeIf(BundleName::isValid),
                engine = EngineChoice.entries.find { it.name == stored[ENGINE] } ?: default.engine,
                accelerator = Accelerator.entries.find { it.id == stored[ACCELERATOR] },
                threads = (stored[THREADS] as? String)?.toIntOrNull()?.takeIf { it in THREADS_VALID },
            )
        }
    }
}
