package xformer.mobile.engine

import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtProvider
import java.io.File
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir
import xformer.mobile.Fixtures
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Artifact
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleException
import xformer.mobile.core.EngineException
import xformer.mobile.core.EngineOptions
import xformer.mobile.core.Format
import xformer.mobile.core.ImageSize
import xformer.mobile.core.RgbImage
import xformer.mobile.core.UsageException

class OnnxRuntimeEngineTest {
    @TempDir
    lateinit var directory: File

    private val bundle = Bundle.open(File(Fixtures.bundles, "classify-fp32"))

    private val picture = RgbImage(256, 256, Random(1).nextBytes(3 * 256 * 256))

    @Test
    fun `the report says what is known`() {
        val options = EngineOptions(threads = 2)
        open(bundle.artifact(Format.ORT), options).use { engine ->
            val report = engine.report
            assertEquals("onnxruntime", report.engine)
            assertEquals(OrtEnvironment.getEnvironment().version, report.version)
            assertEquals(listOf(Format.ORT, 2), listOf(report.format, report.threads))
            assertEquals(listOf(Accelerator.CPU, Accelerator.CPU), listOf(report.requested, report.used))
            assertEquals(emptyList(), report.notes)
        }
    }

    @Test
    fun `runs do not disturb each other`() {
        open(bundle.artifact(Format.ONNX)).use { engine ->
            val first = engine.run(picture).getValue("logits")
            assertContentEquals(intArrayOf(1, 14), first.shape)
            val kept = first.values.copyOf()
            val other = engine.run(RgbImage(256, 256, ByteArray(3 * 256 * 256))).getValue("logits")
            assertFalse(other.values.contentEquals(kept))
            assertContentEquals(kept, first.values)
            assertContentEquals(kept, engine.run(picture).getValue("logits").values)
        }
    }

    @Test
    fun `two sessions of one process live side by side, and closing one twice leaves the other`() {
        val first = open(bundle.artifact(Format.ONNX))
        val second = open(bundle.artifact(Format.ORT))
        val expected = second.run(picture).getValue("logits").values
        first.close()
        first.close()
        val error = assertFailsWith<UsageException> { first.run(picture) }
        assertEquals("the engine is closed; open the bundle again", error.message)
        assertContentEquals(expected, second.run(picture).getValue("logits").values)
        second.close()
    }

    @Test
    fun `an accelerator that is not there is refused, with what there is`() {
        val there = OrtEnvironment.getAvailableProviders()
        assertTrue(OrtProvider.CPU in there && OrtProvider.NNAPI !in there && OrtProvider.XNNPACK !in there)
        for (accelerator in listOf(Accelerator.XNNPACK, Accelerator.NNAPI, Accelerator.GPU)) {
            val problem = "this build of ONNX Runtime has no ${accelerator.id}; it has cpu"
            assertEquals(problem, OnnxRuntimeEngine.problem(accelerator))
            val error = assertFailsWith<EngineException> {
                open(bundle.artifact(Format.ONNX), EngineOptions(accelerator = accelerator))
            }
            assertEquals(problem, error.message)
        }
        assertNull(OnnxRuntimeEngine.problem(Accelerator.CPU))
    }

    @Test
    fun `threads that can't be are refused`() {
        for (threads in listOf(257, 1000, Int.MAX_VALUE)) {
            val error = assertFailsWith<UsageException> {
                open(bundle.artifact(Format.ONNX), EngineOptions(threads))
            }
            assertEquals("$threads threads are not valid; valid: 1 to 256", error.message)
        }
        for (threads in listOf(0, -1)) assertFailsWith<UsageException> { EngineOptions(threads) }
    }

    @Test
    fun `another format is refused`() {
        val error = assertFailsWith<UsageException> { open(bundle.artifact(Format.TFLITE)) }
        assertEquals("ONNX Runtime does not run tflite; it runs onnx, ort", error.message)
    }

    @Test
    fun `what is no model is refused in one line`() {
        val onnx = bundle.artifact(Format.ONNX).file.readBytes()
        val ort = bundle.artifact(Format.ORT).file.readBytes()
        val random = Random(3)
        val contents = mapOf(
            "nothing" to ByteArray(0),
            "noise" to random.nextBytes(10_000),
            "text" to "this is no model".toByteArray(),
            "half" to onnx.copyOf(onnx.size / 2),
            "its beginning" to onnx.copyOf(100),
            "all but a byte" to onnx.copyOf(onnx.size - 1),
            "the other format" to ort,
        )
        for ((name, content) in contents) assertRefused(name, Format.ONNX, content)
        assertRefused("an .onnx file", Format.ORT, onnx)
        assertRefused("half of an .ort file", Format.ORT, ort.copyOf(ort.size / 2))
        assertRefused("the beginning of an .ort file", Format.ORT, ort.copyOf(64))
        val missing = Artifact(Format.ONNX, File(directory, "missing.onnx"), "0".repeat(64), 1)
        assertOneLine(assertFailsWith<BundleException> { open(missing) })
    }

    private fun assertRefused(name: String, format: Format, content: ByteArray) {
        val file = File(directory, "model.${format.id}").apply { writeBytes(content) }
        val error = assertFailsWith<BundleException>(name) {
            open(Artifact(format, file, "0".repeat(64), content.size.toLong()))
        }
        assertOneLine(error)
        assertTrue(error.message.orEmpty().startsWith("ONNX Runtime refuses $file: "), "$name: ${error.message}")
    }

    private fun assertOneLine(error: Exception) {
        val message = error.message.orEmpty()
        assertTrue('\n' !in message && message.length < 400, message)
    }

    @Test
    fun `a model of another input is refused`() {
        val error = assertFailsWith<BundleException> {
            OnnxRuntimeEngine.open(bundle.artifact(Format.ONNX), ImageSize(256, 320), EngineOptions(), false)
        }
        assertEquals(
            "the model takes UINT8 [1, 256, 256, 3] as 'image'; the manifest declares UINT8 [1, 256, 320, 3]",
            error.message,
        )
    }

    @Test
    fun `int8 weights are unpacked when the model is loaded, and the outputs stay`() {
        val packed = Bundle.open(File(Fixtures.bundles, "classify-int8-weights"))
        val artifact = packed.artifact(Format.ONNX)
        val outputs = listOf(false, true).map { unpack ->
            OnnxRuntimeEngine.open(artifact, packed.imageSize, EngineOptions(1), unpack).use { it.run(picture) }
        }
        val (a, b) = outputs.map { it.getValue("logits").values }
        for (i in a.indices) assertEquals(a[i], b[i], 1e-4f)
        // It is the bundle's precision that says so.
        val said = "int8 weights are unpacked when the model is loaded"
        for ((other, notes) in mapOf(packed to listOf(said), bundle to emptyList())) {
            EngineKind.ONNX_RUNTIME.open(other, other.artifact(Format.ONNX), EngineOptions(1)).use {
                assertEquals(notes, it.report.notes)
            }
        }
    }

    @Test
    fun `what the manifest says of a format counts, not how the file is called`() {
        for (format in listOf(Format.ONNX, Format.ORT)) {
            val file = bundle.artifact(format).file.copyTo(File(directory, "model-$format.bin"))
            open(Artifact(format, file, "0".repeat(64), file.length())).use { assertEquals(1, it.run(picture).size) }
        }
    }

    @Test
    fun `as an EngineProvider it opens the same`() {
        val engine = OnnxRuntimeEngine.open(
            bundle.artifact(Format.ONNX),
            bundle.imageSize,
            bundle.outputShapes,
            EngineOptions(1),
        )
        engine.use { assertEquals(setOf("logits"), it.run(picture).keys) }
    }

    private fun open(artifact: Artifact, options: EngineOptions = EngineOptions(1)): OnnxRuntimeEngine =
        OnnxRuntimeEngine.open(artifact, ImageSize(256, 256), options, unpackWeights = false)
}
