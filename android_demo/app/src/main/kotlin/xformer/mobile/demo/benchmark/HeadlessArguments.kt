package xformer.mobile.demo.benchmark

import xformer.mobile.EngineChoice
import xformer.mobile.core.Accelerator
import xformer.mobile.core.UsageException
import xformer.mobile.demo.model.BundleName
import xformer.mobile.demo.model.Choice
import xformer.mobile.demo.model.EngineIds

/**
 * What a headless benchmark is asked to do.
 *
 * @property bundle the bundle's name; null: the first one by name.
 * @property engines in the order in which they are measured; null: every one that runs the bundle.
 * @property accelerators null: each engine's own way on the CPU.
 * @property threads null: the engine's own choice.
 * @property runs timed runs of each engine and format.
 * @property output the name of the results' file.
 */
data class HeadlessArguments(
    val bundle: String? = null,
    val engines: List<EngineChoice>? = null,
    val accelerators: List<Accelerator>? = null,
    val threads: Int? = null,
    val runs: Int = 200,
    val output: String = "results.json",
) {
    companion object {
        /** Every argument's name. */
        val NAMES: Set<String> = setOf("bundle", "engines", "accelerators", "threads", "runs", "output")

        private val THREADS = Choice.THREADS_VALID
        private val ACCELERATORS = Accelerator.entries.associateBy { it.id }
        private val RUNS = 10..100_000

        /**
         * Read what `adb` gives. Numbers may be numbers or their digits; a list is separated by `,` or `+`.
         *
         * @param given by name; nulls are as if they were not given.
         * @throws UsageException an unknown name, or a value that can't be right.
         */
        fun of(given: Map<String, Any?>): HeadlessArguments {
            val unknown = given.keys - NAMES
            if (unknown.isNotEmpty()) {
                throw UsageException("unknown argument '${unknown.first()}'; valid: ${NAMES.joinToString()}")
            }
            val defaults = HeadlessArguments()
            return HeadlessArguments(
                bundle = given["bundle"]?.let(::bundle),
                engines = given["engines"]?.let { list("engines", it, EngineIds.byId) },
                accelerators = given["accelerators"]?.let { list("accelerators", it, ACCELERATORS) },
                threads = given["threads"]?.let { number("threads", it, THREADS) },
                runs = given["runs"]?.let { number("runs", it, RUNS) } ?: defaults.runs,
                output = given["output"]?.let(::output) ?: defaults.output,
            )
        }

        /** The name of the results' file, also where other arguments can't be right; the usual one where it can't be. */
        fun outputOf(given: Map<String, Any?>): String =
            given["output"]?.toString()?.takeIf(ResultName::isValid) ?: HeadlessArguments().output

        private fun bundle(value: Any): String {
            val name = value.toString()
            if (!BundleName.isValid(name)) {
                throw UsageException("bundle '${shown(name)}' is no bundle's name; valid: letters, digits, . _ and -")
            }
            return name
        }

        private fun output(value: Any): String {
            val name = value.toString()
            if (!ResultName.isValid(name)) {
                throw UsageException(
                    "output '${shown(name)}' is not valid; valid is the name of a .json file, without a folder, of " +
                        "letters, digits, . _ and -",
                )
            }
            return name
        }

        private fun number(name: String, value: Any, valid: IntRange): Int {
            val number = value as? Int ?: value.toString().takeIf { it.length <= MOST_DIGITS }?.toIntOrNull()
            if (number == null || number !in valid) {
                throw UsageException("$name is '${shown(value)}'; valid: ${valid.first} to ${valid.last}")
            }
            return number
        }

        private fun <T : Any> list(name: String, value: Any, valid: Map<String, T>): List<T> =
            value.toString().split(',', '+').map { part ->
                valid[part.trim()]
                    ?: throw UsageException("$name has '${shown(part)}'; valid: ${valid.keys.joinToString()}")
            }.distinct()

        private fun shown(value: Any): String = value.toString().take(MOST_SHOWN)

        private const val MOST_DIGITS = 9
        private const val MOST_SHOWN = 60
    }
}
