package xformer.mobile.engine

import java.io.File
import kotlin.random.Random
import kotlin.test.BeforeTest
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import xformer.mobile.Fixtures
import xformer.mobile.StubTensor
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Artifact
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleException
import xformer.mobile.core.CheckedEngine
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineException
import xformer.mobile.core.EngineOptions
import xformer.mobile.core.Format
import xformer.mobile.core.ImageSize
import xformer.mobile.core.RgbImage
import xformer.mobile.core.UsageException

class LiteRtEngineTest {
    @TempDir
    lateinit var directory: File

    private val bundle = Bundle.open(File(Fixtures.bundles, "detect-int8"))

    private val picture = RgbImage(256, 256, Random(1).nextBytes(3 * 256 * 256))

    @BeforeTest
    fun forgetOthers() {
        Interpreter.forget()
    }

    @Test
    fun `the report says what is known`() {
        open(bundle.artifact(Format.TFLITE), EngineOptions(2, Accelerator.XNNPACK)).use { engine ->
            val report = engine.report
            assertEquals(listOf("litert", "python"), listOf(report.engine, report.version))
            assertEquals(listOf(Format.TFLITE, 2), listOf(report.format, report.threads))
            assertEquals(listOf(Accelerator.XNNPACK, null), listOf(report.requested, report.used))
            assertContains(report.notes.single(), "how many each took can't be told")
        }
        open(bundle.artifact(Format.TFLITE), EngineOptions()).use { engine ->
            assertEquals(Accelerator.CPU, engine.report.used)
            assertEquals(emptyList(), engine.report.notes)
        }
    }

    @Test
    fun `outputs bear their names in the manifest's order, and runs do not disturb each other`() {
        open(bundle.artifact(Format.TFLITE)).use { engine ->
            val first = engine.run(picture)
            assertEquals(listOf("stride8", "stride16", "stride32"), first.keys.toList())
            for ((name, tensor) in first) assertContentEquals(bundle.outputShapes.getValue(name), tensor.shape)
            val kept = first.mapValues { it.value.values.copyOf() }
            val other = engine.run(RgbImage(256, 256, ByteArray(3 * 256 * 256)))
            val again = engine.run(picture)
            for ((name, values) in kept) {
                assertFalse(other.getValue(name).values.contentEquals(values))
                assertContentEquals(values, first.getValue(name).values)
                assertContentEquals(values, again.getValue(name).values)
            }
        }
    }

    @Test
    fun `outputs are found by their names where the manifest has another order`() {
        val artifact = bundle.artifact(Format.TFLITE)
        val expected = open(artifact).use { it.run(picture) }
        val order = listOf("stride32", "stride8", "stride16")
        val shapes = order.associateWith { bundle.outputShapes.getValue(it) }
        LiteRtEngine.open(artifact, bundle.imageSize, shapes, EngineOptions(1, Accelerator.XNNPACK)).use { engine ->
            val found = engine.run(picture)
            assertEquals(order, found.keys.toList())
            for (name in order) assertContentEquals(expected.getValue(name).values, found.getValue(name).values)
        }
    }

    @Test
    fun `XNNPACK is on or off as it is asked for`() {
        // Its int8 kernels round as LiteRT's own do not; the same would come out if the option were lost.
        val outputs = listOf(Accelerator.XNNPACK, Accelerator.CPU).map { accelerator ->
            open(bundle.artifact(Format.TFLITE), EngineOptions(1, accelerator)).use { it.run(picture) }
        }
        val (a, b) = outputs.map { it.getValue("stride8").values }
        assertFalse(a.contentEquals(b))
    }

    @Test
    fun `outputs of other names are kept for the contract to refuse`() {
        val other = mapOf("boxes" to intArrayOf(1, 57, 32, 32), "stride16" to intArrayOf(1, 57, 16, 16))
        val artifact = bundle.artifact(Format.TFLITE)
        val engine = LiteRtEngine.open(artifact, bundle.imageSize, other, EngineOptions())
        CheckedEngine(engine, bundle.imageSize, other).use { checked ->
            val error = assertFailsWith<BundleException> { checked.run(picture) }
            assertContains(error.message.orEmpty(), "stride8")
        }
    }

    @Test
    fun `closing is done once, and for good`() {
        val engine = open(bundle.artifact(Format.TFLITE))
        engine.close()
        engine.close()
        assertEquals(listOf(1), Interpreter.closings())
        val error = assertFailsWith<UsageException> { engine.run(picture) }
        assertEquals("the engine is closed; open the bundle again", error.message)
    }

    @Test
    fun `an accelerator that is not there is refused and nothing stays open`() {
        for (accelerator in listOf(Accelerator.GPU, Accelerator.NNAPI)) {
            val error = assertFailsWith<EngineException>(accelerator.id) {
                open(bundle.artifact(Format.TFLITE), EngineOptions(accelerator = accelerator))
            }
            assertContains(error.message.orEmpty(), Regex("LiteRT('s GPU delegate)? can't"))
            assertFalse('\n' in error.message.orEmpty())
        }
        assertTrue(Interpreter.closings().all { it == 1 })
        assertContains(LiteRtEngine.problem(Accelerator.GPU).orEmpty(), "can't be loaded")
        assertNull(LiteRtEngine.problem(Accelerator.XNNPACK))
    }

    @Test
    fun `threads that can't be are refused`() {
        val error = assertFailsWith<UsageException> { open(bundle.artifact(Format.TFLITE), EngineOptions(1000)) }
        assertEquals("1000 threads are not valid; valid: 1 to 256", error.message)
    }

    @Test
    fun `another format is refused`() {
        val error = assertFailsWith<UsageException> { open(bundle.artifact(Format.ONNX)) }
        assertEquals("LiteRT does not run onnx; it runs tflite", error.message)
    }

    @Test
    fun `what is no model is refused before LiteRT sees it`() {
        val whole = bundle.artifact(Format.TFLITE).file.readBytes()
        val far = whole.copyOf(1000).also { for (i in 0 until 4) it[i] = -1 }
        val root = (0 until 4).fold(0) { value, i -> value or ((whole[i].toInt() and 0xFF) shl (8 * i)) }
        val contents = mapOf(
            "nothing" to (ByteArray(0) to "it is not a .tflite file"),
            "seven bytes" to (whole.copyOf(7) to "it is not a .tflite file"),
            "noise" to (Random(2).nextBytes(5000) to "it is not a .tflite file"),
            "a root beyond the end" to (far to "it is truncated"),
            "a root in the header" to (whole.copyOf(1000).also { it.fill(0, 0, 4) } to "it is truncated"),
            "nothing from the root on" to (whole.copyOf(root) to "it is truncated"),
        )
        for ((name, expected) in contents) {
            val file = File(directory, "model.tflite").apply { writeBytes(expected.first) }
            val error = assertFailsWith<BundleException>(name) { open(Artifact(Format.TFLITE, file, "", 1)) }
            assertEquals("LiteRT refuses $file: ${expected.second}", error.message, name)
        }
        assertEquals(emptyList(), Interpreter.closings())
        val missing = Artifact(Format.TFLITE, File(directory, "missing"), "", 1)
        assertContains(assertFailsWith<BundleException> { open(missing) }.message.orEmpty(), "can't read")
    }

    @Test
    fun `what LiteRT refuses is refused in one line`() {
        val whole = bundle.artifact(Format.TFLITE).file.readBytes()
        val random = Random(4)
        val noise = whole.copyOf(8) + random.nextBytes(whole.size / 4)
        val file = File(directory, "model.tflite")
        for (content in listOf(whole.copyOf(whole.size * 2 / 3), noise)) {
            file.writeBytes(content)
            val error = assertFailsWith<BundleException> { open(Artifact(Format.TFLITE, file, "", 1)) }
            assertTrue(error.message.orEmpty().startsWith("LiteRT refuses $file: "), error.message)
            assertTrue('\n' !in error.message.orEmpty() && error.message.orEmpty().length < 400)
        }
    }

    @Test
    fun `a model of another input is refused and closed`() {
        val artifact = bundle.artifact(Format.TFLITE)
        val error = assertFailsWith<BundleException> {
            LiteRtEngine.open(artifact, ImageSize(320, 256), bundle.outputShapes, EngineOptions())
        }
        assertEquals(
            "the model takes UINT8 [1, 256, 256, 3] as 'image'; the manifest declares UINT8 [1, 320, 256, 3]",
            error.message,
        )
        assertEquals(listOf(1), Interpreter.closings())
    }

    @Test
    fun `int8 and uint8 outputs become floats by scale and zero point`() {
        val signed = LiteRtEngine.Output(0, StubTensor("a", intArrayOf(1, 4), DataType.INT8, 0.5f, -3))
        signed.bytes.put(byteArrayOf(-128, -3, 0, 127))
        assertContentEquals(floatArrayOf(-62.5f, 0f, 1.5f, 65f), signed.floats())
        val unsigned = LiteRtEngine.Output(0, StubTensor("a", intArrayOf(2, 2), DataType.UINT8, 0.25f, 128))
        unsigned.bytes.put(byteArrayOf(0, 127, -128, -1))
        assertContentEquals(floatArrayOf(-32f, -0.25f, 0f, 31.75f), unsigned.floats())
        assertContentEquals(intArrayOf(2, 2), unsigned.shape)
        val float = LiteRtEngine.Output(0, StubTensor("a", intArrayOf(2), DataType.FLOAT32))
        float.bytes.asFloatBuffer().put(floatArrayOf(1.5f, Float.NaN))
        assertContentEquals(floatArrayOf(1.5f, Float.NaN), float.floats())
    }

    @Test
    fun `an output of another type is refused`() {
        for (type in listOf(DataType.INT64, DataType.INT32, DataType.BOOL)) {
            assertFailsWith<BundleException> { LiteRtEngine.Output(0, StubTensor("a", intArrayOf(1), type, 1f)) }
        }
        val error = assertFailsWith<BundleException> {
            LiteRtEngine.Output(0, StubTensor("logits", intArrayOf(1), DataType.INT8))
        }
        assertEquals(
            "LiteRT returns 'logits' as INT8; float32, or int8 or uint8 with a scale, is needed",
            error.message,
        )
    }

    private fun open(artifact: Artifact, options: EngineOptions = EngineOptions(1, Accelerator.XNNPACK)): Engine =
        LiteRtEngine.open(artifact, bundle.imageSize, bundle.outputShapes, options)
}
