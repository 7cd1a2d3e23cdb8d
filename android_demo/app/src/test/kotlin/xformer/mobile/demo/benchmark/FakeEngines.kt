package xformer.mobile.demo.benchmark

import java.io.File
import javax.imageio.ImageIO
import xformer.mobile.EngineChoice
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Bundle
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineReport
import xformer.mobile.core.Format
import xformer.mobile.core.Outputs
import xformer.mobile.core.PictureDecoder
import xformer.mobile.core.RgbImage
import xformer.mobile.core.Tensor

/** The sample weights' classifier, as `make test-android` exports it. */
internal val classifier: Bundle by lazy {
    Bundle.open(File(checkNotNull(System.getProperty("xformer.bundles")), "classify-fp32"))
}

internal val decoder = PictureDecoder { content ->
    val image = ImageIO.read(content.inputStream())
    val bytes = ByteArray(3 * image.width * image.height)
    for (i in 0 until image.width * image.height) {
        val pixel = image.getRGB(i % image.width, i / image.width)
        for (channel in 0..2) bytes[3 * i + channel] = (pixel shr (16 - 8 * channel)).toByte()
    }
    RgbImage(image.width, image.height, bytes)
}

internal fun target(format: Format = Format.ONNX, engine: EngineChoice = EngineChoice.ONNX_RUNTIME) =
    BenchmarkTarget(format, engine, Accelerator.CPU)

/** Returns the golden outputs for the golden pictures, wrong by [off], and zeros for others. */
internal class GoldenEngine(bundle: Bundle, format: Format = Format.ONNX, private val off: Float = 0f) : Engine {
    private val outputs = bundle.golden(decoder).associate { it.image.bytes.contentHashCode() to it.outputs }
    private val zeros =
        bundle.outputShapes.mapValues { (_, shape) -> Tensor(shape, FloatArray(shape.reduce(Int::times))) }
    var closed = 0

    override val report = EngineReport("onnxruntime", "1.0", format, 2, Accelerator.CPU, Accelerator.CPU)

    override fun run(image: RgbImage): Outputs =
        (outputs[image.bytes.contentHashCode()] ?: zeros).mapValues { (_, tensor) ->
            Tensor(tensor.shape, FloatArray(tensor.values.size) { tensor.values[it] + off })
        }

    override fun close() {
        closed += 1
    }
}
