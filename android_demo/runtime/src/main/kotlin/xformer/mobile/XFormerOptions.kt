package xformer.mobile

import xformer.mobile.core.Accelerator
import xformer.mobile.core.Artifact
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleException
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineException
import xformer.mobile.core.EngineOptions
import xformer.mobile.core.Format
import xformer.mobile.core.UsageException
import xformer.mobile.engine.EngineKind

/** Which engine runs a bundle. */
public enum class EngineChoice(internal val kind: EngineKind?) {
    /**
     * The first of ONNX Runtime and LiteRT that runs a format which the bundle has, and that knows the accelerator
     * which is asked for. Nothing is tried out: if the one that is chosen can't open the bundle, that is an error.
     */
    AUTO(null),

    /** Runs .onnx, else .ort. */
    ONNX_RUNTIME(EngineKind.ONNX_RUNTIME),

    /** Runs .tflite. */
    LITERT(EngineKind.LITERT),
}

/**
 * How a bundle is opened.
 *
 * [threads] are those within an operator, 1 to 256; null leaves the choice to the engine. [accelerator] null is the
 * engine's own way on the CPU: [Accelerator.CPU] for ONNX Runtime, [Accelerator.XNNPACK] for LiteRT. [format] chooses
 * one of the engine's formats, null the first that the bundle has. With [warmUp], the model is run once before it
 * counts as opened.
 */
public data class XFormerOptions(
    val engine: EngineChoice = EngineChoice.AUTO,
    val threads: Int? = null,
    val accelerator: Accelerator? = null,
    val format: Format? = null,
    val warmUp: Boolean = true,
)

/**
 * A way to run a bundle on this device. [problem] says in one sentence why it can't be taken, null where it can, as far
 * as can be told without trying: a driver may still refuse the model.
 */
public data class EngineOffer(
    val engine: EngineChoice,
    val format: Format,
    val accelerator: Accelerator,
    val problem: String?,
) {
    /** Whether it can be taken. */
    val isAvailable: Boolean get() = problem == null

    /** The options that take it. */
    public fun options(threads: Int? = null, warmUp: Boolean = true): XFormerOptions =
        XFormerOptions(engine, threads, accelerator, format, warmUp)

    /**
     * Opens the engine alone, for `GoldenReplay` and `Benchmark`. Blocks; open, run and close it on one thread, which
     * the GPU asks for. [artifact] is the bundle's of this format, which is read and checked unless it is given.
     *
     * @throws BundleException the artifact is missing, is not the manifest's, or is refused by the engine.
     * @throws EngineException the engine or the accelerator is not there, or fails.
     * @throws UsageException the bundle has no such format, or a number of threads that can't be.
     */
    public fun open(bundle: Bundle, threads: Int? = null, artifact: Artifact = bundle.artifact(format)): Engine {
        val kind = engine.kind ?: throw UsageException("an engine is opened by its name; got $engine")
        return kind.open(bundle, artifact, EngineOptions(threads, accelerator))
    }
}

/** An engine with a format and an accelerator. */
internal data class Plan(val kind: EngineKind, val format: Format, val accelerator: Accelerator)

/**
 * What [options] mean for a bundle that has [formats].
 *
 * @throws UsageException there is no engine for them.
 */
internal fun plan(formats: List<Format>, options: XFormerOptions): Plan {
    fun format(kind: EngineKind): Format? =
        kind.formats.find { it in formats && (options.format == null || options.format == it) }

    val kinds = options.engine.kind?.let { listOf(it) } ?: EngineKind.entries
    val kind = kinds.find { kind ->
        format(kind) != null && (options.accelerator == null || options.accelerator in kind.accelerators)
    }
    if (kind != null) {
        return Plan(kind, checkNotNull(format(kind)), options.accelerator ?: kind.accelerators.first())
    }
    val asked = listOfNotNull(
        kinds.joinToString(" or ") { it.title },
        options.format?.let { "the format ${it.id}" },
        options.accelerator?.let { "the accelerator ${it.id}" },
    )
    val ways = EngineKind.entries.mapNotNull { other ->
        val runs = other.formats.filter { it in formats }
        if (runs.isEmpty()) {
            null
        } else {
            "${other.title} runs ${runs.joinToString { it.id }} on ${other.accelerators.joinToString { it.id }}"
        }
    }
    val none = "no engine here runs its formats, ${formats.joinToString { it.id }}"
    val found = ways.ifEmpty { listOf(none) }.joinToString("; ")
    throw UsageException("the bundle can't be run with ${asked.joinToString()}: $found")
}

/** Every way to run a bundle that has [formats], as far as engines are concerned; [problem] is asked once for each. */
internal fun offers(
    formats: List<Format>,
    problem: (EngineKind, Accelerator) -> String? = { kind, accelerator -> kind.problem(accelerator) },
): List<EngineOffer> = EngineChoice.entries.flatMap { choice ->
    val kind = choice.kind ?: return@flatMap emptyList()
    val found = kind.formats.filter { it in formats }
    val known = kind.formats.joinToString(" or ") { it.id }
    val missing = "the bundle has no $known; export it with --format ${kind.formats.first().id}"
    kind.accelerators.flatMap { accelerator ->
        if (found.isEmpty()) {
            listOf(EngineOffer(choice, kind.formats.first(), accelerator, missing))
        } else {
            val why = problem(kind, accelerator)
            found.map { EngineOffer(choice, it, accelerator, why) }
        }
    }
}
