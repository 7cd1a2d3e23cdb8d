package xformer.mobile.demo.model

import xformer.mobile.EngineChoice
import xformer.mobile.core.Accelerator
import xformer.mobile.demo.R

/** The engines and accelerators by the ids of reports and command lines, and by what the screens call them. */
object EngineIds {
    /** The engines that can be named, by id. */
    val byId: Map<String, EngineChoice> =
        mapOf("onnxruntime" to EngineChoice.ONNX_RUNTIME, "litert" to EngineChoice.LITERT)

    /** The id of an engine that can be named. */
    fun idOf(engine: EngineChoice): String = byId.entries.first { it.value == engine }.key

    /** The string that names an engine. */
    fun text(engine: EngineChoice): Int = when (engine) {
        EngineChoice.AUTO -> R.string.engine_auto
        EngineChoice.ONNX_RUNTIME -> R.string.engine_onnxruntime
        EngineChoice.LITERT -> R.string.engine_litert
    }

    /** The string that names an accelerator; null is the engine's own way. */
    fun text(accelerator: Accelerator?): Int = when (accelerator) {
        null -> R.string.accelerator_default
        Accelerator.CPU -> R.string.accelerator_cpu
        Accelerator.XNNPACK -> R.string.accelerator_xnnpack
        Accelerator.GPU -> R.string.accelerator_gpu
        Accelerator.NNAPI -> R.string.accelerator_nnapi
    }
}
