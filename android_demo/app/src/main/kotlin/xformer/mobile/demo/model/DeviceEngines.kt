package xformer.mobile.demo.model

import xformer.mobile.EngineChoice
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Artifact
import xformer.mobile.core.Bundle
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineOptions
import xformer.mobile.core.UsageException
import xformer.mobile.engine.LiteRtEngine
import xformer.mobile.engine.OnnxRuntimeEngine

/** Opens engines without a model around them, for measurements. */
object DeviceEngines {
    /** Weights in int8, computed with in float: the engine unpacks them once. */
    private const val INT8_WEIGHTS = "int8-weights"

    /**
     * Load an artifact of [bundle]. The engine belongs to the thread that opens it.
     *
     * @throws xformer.mobile.core.XFormerException the engine is not there, or refuses the artifact.
     */
    fun open(
        bundle: Bundle,
        artifact: Artifact,
        engine: EngineChoice,
        accelerator: Accelerator,
        threads: Int?,
    ): Engine {
        val options = EngineOptions(threads, accelerator)
        return when (engine) {
            EngineChoice.ONNX_RUNTIME ->
                OnnxRuntimeEngine.open(artifact, bundle.imageSize, options, bundle.precision == INT8_WEIGHTS)
            EngineChoice.LITERT -> LiteRtEngine.open(artifact, bundle.imageSize, bundle.outputShapes, options)
            EngineChoice.AUTO -> throw UsageException("an engine that is measured is named; got AUTO")
        }
    }
}
