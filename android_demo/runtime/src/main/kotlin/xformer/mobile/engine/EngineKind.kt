package xformer.mobile.engine

import xformer.mobile.core.Accelerator
import xformer.mobile.core.Artifact
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleException
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineException
import xformer.mobile.core.EngineOptions
import xformer.mobile.core.Format
import xformer.mobile.core.UsageException
import xformer.mobile.core.XFormerException

/**
 * The engines, a row for each: what it is called, the formats and the accelerators that it runs, the first choice
 * first. An engine's own classes are loaded when they are used, so that an app may leave one out.
 */
internal enum class EngineKind(
    val id: String,
    val title: String,
    val formats: List<Format>,
    val accelerators: List<Accelerator>,
) {
    ONNX_RUNTIME(
        "onnxruntime",
        "ONNX Runtime",
        listOf(Format.ONNX, Format.ORT),
        listOf(Accelerator.CPU, Accelerator.XNNPACK, Accelerator.NNAPI),
    ),
    LITERT(
        "litert",
        "LiteRT",
        listOf(Format.TFLITE),
        listOf(Accelerator.XNNPACK, Accelerator.CPU, Accelerator.GPU, Accelerator.NNAPI),
    ),
    ;

    /** Why an accelerator can't be used here, in one sentence; null where it can, as far as can be told. */
    fun problem(accelerator: Accelerator): String? = try {
        when {
            accelerator !in accelerators ->
                "$title does not run on ${accelerator.id}; it runs on ${accelerators.joinToString { it.id }}"
            this == ONNX_RUNTIME -> OnnxRuntimeEngine.problem(accelerator)
            else -> LiteRtEngine.problem(accelerator)
        }
    } catch (error: LinkageError) {
        leftOut(error)
    }

    private fun leftOut(error: LinkageError) = "this app is built without $title: ${oneLine(error)}"

    /** Opens a bundle's artifact; see the engines. What their libraries throw is told in this library's own terms. */
    fun open(bundle: Bundle, artifact: Artifact, options: EngineOptions): Engine = opening(artifact) {
        when (this) {
            ONNX_RUNTIME ->
                OnnxRuntimeEngine.open(artifact, bundle.imageSize, options, bundle.precision == INT8_WEIGHTS)
            LITERT -> LiteRtEngine.open(artifact, bundle.imageSize, bundle.outputShapes, options)
        }
    }

    internal inline fun opening(artifact: Artifact, open: () -> Engine): Engine = try {
        open()
    } catch (error: XFormerException) {
        throw error
    } catch (error: LinkageError) {
        throw EngineException(leftOut(error), error)
    } catch (error: Exception) { // such as LiteRT's for a tensor of a type that its Java classes do not know
        throw BundleException("$title refuses ${artifact.file}: ${oneLine(error)}", error)
    }

    /** @throws UsageException another engine's format, or too many threads. */
    fun check(format: Format, options: EngineOptions) {
        if (format !in formats) {
            throw UsageException("$title does not run ${format.id}; it runs ${formats.joinToString { it.id }}")
        }
        val threads = options.threads
        if (threads != null && threads !in THREADS) {
            throw UsageException("$threads threads are not valid; valid: ${THREADS.first} to ${THREADS.last}")
        }
    }

    companion object {
        private val THREADS = 1..256

        private const val INT8_WEIGHTS = "int8-weights"

        /** The engine that runs a format; null where none does. */
        fun of(format: Format): EngineKind? = entries.find { format in it.formats }
    }
}

private const val LONGEST = 200

/** What a library says of its failure, as one line of a reasonable length. */
internal fun oneLine(error: Throwable): String {
    val root = generateSequence(error) { it.cause }.last()
    val said = error.message ?: root.message ?: root.javaClass.simpleName
    return said.trim().split(Regex("\\s+")).joinToString(" ").take(LONGEST)
}
