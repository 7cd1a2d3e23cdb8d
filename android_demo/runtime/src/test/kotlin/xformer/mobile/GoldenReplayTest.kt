package xformer.mobile

import java.io.File
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleException
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineOptions
import xformer.mobile.core.EngineReport
import xformer.mobile.core.Format
import xformer.mobile.core.GoldenReplay
import xformer.mobile.core.Outputs
import xformer.mobile.core.ParityResult
import xformer.mobile.core.RgbImage
import xformer.mobile.core.Tensor
import xformer.mobile.engine.EngineKind

/** The replay of golden cases on the device can fail. That it passes for every bundle and format, ParityTest says. */
class GoldenReplayTest {
    @TempDir
    lateinit var directory: File

    @Test
    fun `the weights of another precision are found out by the numbers`() {
        for (format in listOf(Format.ONNX, Format.TFLITE)) {
            val bundle = copyOf("classify-fp32", File(directory, format.id), listOf(format))
            exchange(bundle, format, artifact("classify-int8", format))
            val result = replay(bundle, format)
            assertFalse(result.passed, format.id)
            assertContains(result.misses.first(), Regex("logits differs by .* of its range, 1e-04 is allowed"))
        }
    }

    @Test
    fun `what belongs to another picture is found out, in int8 too`() {
        // The pictures stay; what the reference model returns for them goes one picture further.
        for (format in listOf(Format.ONNX, Format.TFLITE)) {
            val bundle = copyOf("classify-int8", File(directory, format.id), listOf(format))
            val manifest = File(bundle, "manifest.json")
            val files = Bundle.open(bundle).manifest.golden.map { it.outputs.getValue("logits") }
            var text = manifest.readText()
            for ((index, file) in files.withIndex()) {
                text = text.replace("\"${file.file}\"", "\"file $index\"").replace(file.sha256, "sha256 $index")
            }
            for (index in files.indices) {
                val next = files[(index + 1) % files.size]
                text = text.replace("\"file $index\"", "\"${next.file}\"").replace("sha256 $index", next.sha256)
            }
            manifest.writeText(text)
            val result = replay(bundle, format)
            assertFalse(result.passed, format.id)
            assertContains(result.misses.single(), "3 dB needed")
        }
    }

    @Test
    fun `an engine that computes nothing is found out in every task, in int8 too`() {
        for (name in listOf("classify-int8", "detect-int8", "segment-int8")) {
            val bundle = Bundle.open(File(Fixtures.bundles, name))
            val nothing = bundle.outputShapes.mapValues { (_, shape) ->
                Tensor(shape, FloatArray(shape.reduce(Int::times)))
            }
            val engine = object : Engine {
                override val report = EngineReport("stub", "1", Format.ONNX, 1, Accelerator.CPU, Accelerator.CPU)

                override fun run(image: RgbImage): Outputs = nothing

                override fun close() = Unit
            }
            val result = GoldenReplay.run(bundle, Format.ONNX, engine, pngs)
            assertEquals(nothing.size, result.misses.size, "$name: ${result.misses}")
        }
    }

    @Test
    fun `another task's model under the same labels is found out by its outputs`() {
        for (format in listOf(Format.ONNX, Format.TFLITE)) {
            val bundle = copyOf("classify-int8", File(directory, format.id), listOf(format))
            exchange(bundle, format, artifact("detect-int8", format))
            val error = assertFailsWith<BundleException> { replay(bundle, format) }
            assertContains(error.message.orEmpty(), "the manifest declares {logits=(1, 14)}")
            assertContains(error.message.orEmpty(), "stride8")
        }
    }

    @Test
    fun `an artifact that was exchanged without the manifest is not opened`() {
        val bundle = copyOf("classify-int8", directory, listOf(Format.TFLITE))
        File(bundle, "model.tflite").writeBytes(artifact("segment-int8", Format.TFLITE))
        val error = assertFailsWith<BundleException> { replay(bundle, Format.TFLITE) }
        assertTrue("it was changed, truncated or exchanged" in error.message.orEmpty())
    }

    private fun artifact(name: String, format: Format): ByteArray =
        Bundle.open(File(Fixtures.bundles, name)).artifact(format).file.readBytes()

    private fun replay(directory: File, format: Format): ParityResult {
        val bundle = Bundle.open(directory)
        val kind = checkNotNull(EngineKind.of(format))
        return kind.open(bundle, bundle.artifact(format), EngineOptions(1, kind.accelerators.first())).use {
            GoldenReplay.run(bundle, format, it, pngs)
        }
    }
}
