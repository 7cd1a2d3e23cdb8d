package xformer.mobile.core

import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock

/** What an engine computes on; [id] is its name in reports. */
public enum class Accelerator(public val id: String) {
    /** The engine's own kernels. */
    CPU("cpu"),

    /** XNNPACK's kernels, on the CPU too. */
    XNNPACK("xnnpack"),

    /** The graphics processor, by LiteRT's delegate. */
    GPU("gpu"),

    /** Whatever Android's Neural Networks API chooses. */
    NNAPI("nnapi"),
}

/**
 * How an engine is opened: [threads] within an operator (null leaves the choice to the engine), and the accelerator.
 *
 * @throws UsageException [threads] is not positive.
 */
public data class EngineOptions(val threads: Int? = null, val accelerator: Accelerator = Accelerator.CPU) {
    init {
        if (threads != null && threads < 1) throw UsageException("$threads threads are not valid; valid: from 1 on")
    }
}

/**
 * What an engine is and how it was opened: [engine] is "onnxruntime" or "litert". [used] is null where it can't be told
 * whether the accelerator that was [requested] computes. [notes] are for people: what runs on the CPU after all.
 */
public data class EngineReport(
    val engine: String,
    val version: String,
    val format: Format,
    val threads: Int?,
    val requested: Accelerator,
    val used: Accelerator?,
    val notes: List<String> = emptyList(),
)

/** A model that is loaded. Layout, dtype, scale and zero point of the engine stay inside. */
public interface Engine : AutoCloseable {
    /** What it is and how it was opened. */
    public val report: EngineReport

    /**
     * Runs the model on a picture of the input's size; returns its outputs as float32 by name.
     *
     * Need not be safe to call from several threads; [CheckedEngine] is.
     */
    public fun run(image: RgbImage): Outputs

    /** Releases the model. */
    override fun close()
}

/** Opens engines of one kind. */
public fun interface EngineProvider {
    /**
     * Loads an artifact. [outputShapes] are by name, in the manifest's order.
     *
     * @throws BundleException the engine refuses the artifact.
     * @throws EngineException the engine or the accelerator is not there.
     */
    public fun open(
        artifact: Artifact,
        imageSize: ImageSize,
        outputShapes: Map<String, IntArray>,
        options: EngineOptions,
    ): Engine
}

/**
 * An engine that is held to the manifest, and may be used from any thread: one run at a time, others wait; closing
 * waits for the run.
 */
public class CheckedEngine(
    private val inner: Engine,
    private val imageSize: ImageSize,
    private val outputShapes: Map<String, IntArray>,
) : Engine {
    private val lock = ReentrantLock()
    private var isClosed = false

    override val report: EngineReport get() = inner.report

    /**
     * Runs the model.
     *
     * @throws ImageException a picture of another size.
     * @throws BundleException the outputs are not those that the manifest declares.
     * @throws EngineException the engine failed.
     * @throws UsageException it is closed.
     */
    override fun run(image: RgbImage): Outputs {
        if (image.width != imageSize.width || image.height != imageSize.height) {
            throw ImageException("got a picture of ${image.height}x${image.width}; the model takes $imageSize")
        }
        val outputs = lock.withLock {
            if (isClosed) throw UsageException("the engine is closed; open the bundle again")
            try {
                inner.run(image)
            } catch (error: XFormerException) {
                throw error
            } catch (error: Exception) {
                throw EngineException("${report.engine} failed: ${error.message ?: error.javaClass.simpleName}", error)
            }
        }
        checkDeclared(outputs)
        return outputs
    }

    private fun checkDeclared(outputs: Outputs) {
        val found = outputs.mapValues { describe(it.value.shape) }
        val declared = outputShapes.mapValues { describe(it.value) }
        if (found != declared) {
            throw BundleException("${report.engine} returned $found, the manifest declares $declared")
        }
    }

    override fun close() {
        lock.withLock {
            if (!isClosed) inner.close()
            isClosed = true
        }
    }
}

/** This engine, held to the bundle's manifest. */
internal fun Engine.checkedBy(bundle: Bundle): Engine =
    this as? CheckedEngine ?: CheckedEngine(this, bundle.imageSize, bundle.outputShapes)
