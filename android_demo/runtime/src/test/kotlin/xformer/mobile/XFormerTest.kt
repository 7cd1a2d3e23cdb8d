package xformer.mobile

import java.io.File
import java.nio.ByteBuffer
import java.util.concurrent.CountDownLatch
import java.util.concurrent.atomic.AtomicInteger
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertIs
import kotlin.test.assertTrue
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext
import org.junit.jupiter.api.Timeout
import org.junit.jupiter.api.io.TempDir
import org.tensorflow.lite.Interpreter
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleException
import xformer.mobile.core.Classifications
import xformer.mobile.core.ClassMap
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineException
import xformer.mobile.core.EngineReport
import xformer.mobile.core.Format
import xformer.mobile.core.ImageException
import xformer.mobile.core.Outputs
import xformer.mobile.core.RgbImage
import xformer.mobile.core.RowSource
import xformer.mobile.core.Size
import xformer.mobile.core.Tensor
import xformer.mobile.core.UsageException

@Timeout(300)
class XFormerTest {
    @TempDir
    lateinit var directory: File

    private val classify = bundle("classify-fp32")
    private val segment = bundle("segment-fp32")

    private val image = RgbImage(40, 30, Random(1).nextBytes(3600))

    private fun bundle(name: String) = Bundle.open(File(Fixtures.bundles, name))

    // ---- real engines ----------------------------------------------------------------------------------------------

    @Test
    fun `a bundle is opened, asked and closed`(): Unit = runBlocking {
        for ((choice, engine) in mapOf(EngineChoice.ONNX_RUNTIME to "onnxruntime", EngineChoice.LITERT to "litert")) {
            for (name in listOf("classify-fp32", "detect-int8", "segment-fp32")) {
                val case = Fixtures(Fixtures.bundles, name).cases.first { it.name == "scene-320x240" }
                XFormer.open(File(Fixtures.bundles, name), XFormerOptions(choice, threads = 1)).use { xformer ->
                    assertEquals(engine, xformer.report.engine)
                    assertEquals(name.substringBefore('-'), xformer.bundle.task.id)
                    val picture = case.image()
                    val found = xformer.predict(picture)
                    when (name) {
                        "classify-fp32" -> assertEquals(found, xformer.classify(picture))
                        "detect-int8" -> assertEquals(found, xformer.detect(picture))
                        else -> assertContentEquals(assertIs<ClassMap>(found).classes, xformer.segment(picture).classes)
                    }
                    xformer.warmUp()
                }
            }
        }
    }

    @Test
    fun `the accelerator is the engine's own way unless one is asked for`(): Unit = runBlocking {
        val options = mapOf(
            XFormerOptions(threads = 1) to Accelerator.CPU,
            XFormerOptions(EngineChoice.LITERT) to Accelerator.XNNPACK,
            XFormerOptions(EngineChoice.LITERT, accelerator = Accelerator.CPU) to Accelerator.CPU,
        )
        for ((option, accelerator) in options) {
            XFormer.open(classify, option).use { assertEquals(accelerator, it.report.requested) }
        }
        XFormer.open(classify, XFormerOptions(format = Format.ORT)).use { assertEquals(Format.ORT, it.report.format) }
    }

    @Test
    fun `what can't be opened leaves nothing open`(): Unit = runBlocking {
        Interpreter.forget()
        val damaged = copyOf("classify-fp32", directory, listOf(Format.TFLITE, Format.ONNX))
        exchange(damaged, Format.TFLITE, bundle("detect-fp32").artifact(Format.TFLITE).file.readBytes())
        val options = XFormerOptions(EngineChoice.LITERT, threads = 1)
        // It warms up with the wrong outputs.
        assertFailsWith<BundleException> { XFormer.open(damaged, options) }
        XFormer.open(damaged, options.copy(warmUp = false)).use { xformer ->
            assertFailsWith<BundleException> { xformer.predict(image) }
        }
        File(damaged, "model.onnx").writeBytes(ByteArray(100))
        assertFailsWith<BundleException> { XFormer.open(damaged) }
        assertFailsWith<BundleException> { XFormer.open(directory) }
        assertFailsWith<EngineException> { XFormer.open(classify, XFormerOptions(accelerator = Accelerator.XNNPACK)) }
        assertFailsWith<EngineException> { XFormer.open(classify, XFormerOptions(accelerator = Accelerator.GPU)) }
        for (threads in listOf(0, -1, 1000)) {
            assertFailsWith<UsageException> { XFormer.open(classify, XFormerOptions(threads = threads)) }
        }
        waitUntil { Interpreter.closings() == listOf(1, 1) }
    }

    @Test
    fun `every way to run a bundle is offered, with the reason where it can't be taken`(): Unit = runBlocking {
        val offers = XFormer.engines(classify).associateBy { Triple(it.engine, it.format, it.accelerator) }
        assertEquals(3 + 3 + 4, offers.size)
        val cpu = offers.getValue(Triple(EngineChoice.ONNX_RUNTIME, Format.ORT, Accelerator.CPU))
        assertTrue(cpu.isAvailable)
        val nnapi = offers.getValue(Triple(EngineChoice.ONNX_RUNTIME, Format.ONNX, Accelerator.NNAPI))
        assertEquals("this build of ONNX Runtime has no nnapi; it has cpu", nnapi.problem)
        assertFalse(nnapi.isAvailable)
        assertTrue(offers.getValue(Triple(EngineChoice.LITERT, Format.TFLITE, Accelerator.XNNPACK)).isAvailable)
        XFormer.open(classify, cpu.options(threads = 1)).use { assertEquals(Format.ORT, it.report.format) }
        cpu.open(classify, threads = 3).use { engine ->
            assertEquals(listOf(Format.ORT, 3), listOf(engine.report.format, engine.report.threads))
        }
        assertFailsWith<EngineException> { nnapi.open(classify) }
        assertFailsWith<UsageException> { cpu.copy(format = Format.COREML).open(classify) }
        assertFailsWith<UsageException> { cpu.copy(engine = EngineChoice.AUTO).open(classify) }
    }

    // ---- one thread, in order --------------------------------------------------------------------------------------

    @Test
    fun `calls are queued on one thread, which is not the caller's`(): Unit = runBlocking {
        val engine = StubEngine()
        XFormer.open(classify, warmUp = true) { engine }.use { xformer ->
            assertEquals(1, engine.runs.get())
            withContext(Dispatchers.Default) { List(60) { async { xformer.classify(image) } }.awaitAll() }
        }
        assertEquals(61, engine.runs.get())
        assertEquals(1, engine.threads.size)
        assertTrue(engine.threads.single().name.startsWith("xformer"))
        waitUntil { engine.closings.get() == 1 }
        assertEquals(1, engine.threads.size)
    }

    @Test
    fun `two instances do not wait for each other`(): Unit = runBlocking {
        val held = StubEngine(hold = true)
        XFormer.open(classify, warmUp = false) { held }.use { first ->
            val waiting = launch(Dispatchers.Default) { first.predict(image) }
            held.entered.await()
            XFormer.open(classify, warmUp = false) { StubEngine() }.use { assertEquals(5, it.classify(image).size) }
            assertFalse(waiting.isCompleted)
            held.release.countDown()
            waiting.join()
        }
    }

    @Test
    fun `a call that is cancelled while it waits does nothing`(): Unit = runBlocking {
        val engine = StubEngine(hold = true)
        XFormer.open(classify, warmUp = false) { engine }.use { xformer ->
            val first = launch(Dispatchers.Default) { xformer.predict(image) }
            engine.entered.await()
            val second = launch(start = CoroutineStart.UNDISPATCHED) { xformer.predict(image) }
            second.cancel()
            engine.release.countDown()
            first.join()
            second.join()
            assertEquals(1, engine.runs.get())
            xformer.predict(image)
            assertEquals(2, engine.runs.get())
        }
    }

    @Test
    fun `a call that has begun is waited for when it is cancelled`(): Unit = runBlocking {
        val engine = StubEngine(hold = true)
        XFormer.open(classify, warmUp = false) { engine }.use { xformer ->
            var isInUse = true
            val call = launch(Dispatchers.Default) {
                try {
                    xformer.predict(image)
                } finally {
                    isInUse = engine.inside.get() > 0
                }
            }
            engine.entered.await()
            call.cancel()
            assertFalse(call.isCompleted)
            engine.release.countDown()
            call.join()
            assertTrue(call.isCancelled)
            assertFalse(isInUse, "the caller went on before the engine was done with the picture")
        }
    }

    @Test
    fun `closing lets the run that has begun end, refuses the others, and closes once`(): Unit = runBlocking {
        val engine = StubEngine(hold = true)
        val xformer = XFormer.open(classify, warmUp = false) { engine }
        val first = async(Dispatchers.Default) { xformer.classify(image) }
        engine.entered.await()
        val second = async(start = CoroutineStart.UNDISPATCHED) { runCatching { xformer.classify(image) } }
        xformer.close()
        xformer.close()
        assertEquals(0, engine.closings.get())
        engine.release.countDown()
        assertEquals(5, first.await().size)
        val error = assertIs<UsageException>(second.await().exceptionOrNull())
        assertEquals("it is closed; open the bundle again", error.message)
        assertFailsWith<UsageException> { xformer.predict(image) }
        assertFailsWith<UsageException> { xformer.warmUp() }
        waitUntil { engine.closings.get() == 1 }
        // The thread is gone now, and still the reason is given.
        waitUntil { engine.threads.none { it.isAlive } }
        assertFailsWith<UsageException> { xformer.predict(image) }
        assertEquals(1, engine.closings.get())
        assertEquals(1, engine.runs.get())
    }

    @Test
    fun `opening that is cancelled closes the engine`(): Unit = runBlocking {
        val engine = StubEngine(hold = true)
        val opening = launch(Dispatchers.Default) { XFormer.open(classify, warmUp = true) { engine } }
        engine.entered.await()
        opening.cancel()
        engine.release.countDown()
        opening.join()
        assertTrue(opening.isCancelled)
        waitUntil { engine.closings.get() == 1 }
        waitUntil { engine.threads.none { it.isAlive } }
    }

    @Test
    fun `an engine that can't be opened is that error, and the thread ends`(): Unit = runBlocking {
        var thread: Thread? = null
        val error = assertFailsWith<EngineException> {
            XFormer.open(classify, warmUp = false) {
                thread = Thread.currentThread()
                throw EngineException("it is not there")
            }
        }
        assertEquals("it is not there", error.message)
        waitUntil { thread?.isAlive == false }
    }

    // ---- what is asked and what is answered ------------------------------------------------------------------------

    @Test
    fun `another task is refused before anything is done`(): Unit = runBlocking {
        val engine = StubEngine()
        XFormer.open(classify, warmUp = false) { engine }.use { xformer ->
            val error = assertFailsWith<UsageException> { xformer.detect(image) }
            assertEquals("the bundle is for the task classify, not detect; call classify or predict", error.message)
            assertFailsWith<UsageException> { xformer.segment(image) }
            assertEquals(0, engine.runs.get())
        }
    }

    @Test
    fun `outputs that are not those declared, or not finite, are an error of the bundle`(): Unit = runBlocking {
        val broken = listOf<(Map<String, Tensor>) -> Outputs>(
            { outputs -> outputs.mapValues { (_, tensor) -> tensor.also { it.values[3] = Float.NaN } } },
            { outputs -> outputs.mapValues { (_, tensor) -> tensor.also { it.values[0] = Float.POSITIVE_INFINITY } } },
            { outputs -> outputs.mapKeys { "scores" } },
            { emptyMap() },
            { outputs -> outputs + ("more" to Tensor(intArrayOf(1), FloatArray(1))) },
            { outputs -> outputs.mapValues { (_, tensor) -> Tensor(intArrayOf(14, 1), tensor.values) } },
        )
        for (change in broken) {
            XFormer.open(classify, warmUp = false) { StubEngine(change = change) }.use { xformer ->
                val error = assertFailsWith<BundleException> { xformer.classify(image) }
                assertFalse('\n' in error.message.orEmpty())
            }
        }
    }

    @Test
    fun `an engine that fails is an error, and the next call is served`(): Unit = runBlocking {
        var fails = true
        val engine = StubEngine(change = { if (fails) throw IllegalStateException("the driver is gone") else it })
        XFormer.open(classify, warmUp = false) { engine }.use { xformer ->
            val error = assertFailsWith<EngineException> { xformer.predict(image) }
            assertContains(error.message.orEmpty(), "the driver is gone")
            fails = false
            assertEquals(5, xformer.classify(image).size)
        }
    }

    @Test
    fun `a picture that fails while it is read is an error, and the next call is served`(): Unit = runBlocking {
        val broken = object : RowSource {
            override val width = 10
            override val height = 10

            override fun row(y: Int, into: ByteArray) = throw ImageException("it is recycled")
        }
        XFormer.open(classify, warmUp = false) { StubEngine() }.use { xformer ->
            assertFailsWith<ImageException> { xformer.predict(broken) }
            xformer.predict(image)
        }
    }

    @Test
    fun `pictures of one pixel and of extreme shapes`(): Unit = runBlocking {
        XFormer.open(classify, warmUp = false) { StubEngine() }.use { xformer ->
            for ((width, height) in listOf(1 to 1, 2 to 1, 1 to 200, 400 to 3)) {
                assertEquals(5, xformer.classify(RgbImage(width, height, ByteArray(3 * width * height))).size)
            }
            assertFailsWith<ImageException> { xformer.predict(RgbImage(1, 1_000_000, ByteArray(3_000_000))) }
        }
    }

    @Test
    fun `a camera's frame is the picture that it is converted to, at any size of map`(): Unit = runBlocking {
        val frame = YuvFrame(
            64,
            48,
            YuvPlane(ByteBuffer.wrap(Random(2).nextBytes(64 * 48)), 64, 1),
            YuvPlane(ByteBuffer.wrap(Random(3).nextBytes(32 * 24)), 32, 1),
            YuvPlane(ByteBuffer.wrap(Random(4).nextBytes(32 * 24)), 32, 1),
        )
        XFormer.open(segment, XFormerOptions(EngineChoice.ONNX_RUNTIME, threads = 1)).use { xformer ->
            val expected = xformer.segment(YuvToRgb.convert(frame, 90, mirrored = true))
            repeat(3) {
                val found = assertIs<ClassMap>(xformer.predictTimed(frame, 90, mirrored = true).prediction)
                assertEquals(48 to 64, found.width to found.height)
                assertContentEquals(expected.classes, found.classes)
            }
            val small = assertIs<ClassMap>(xformer.predictTimed(frame, 0, mapSize = Size(7, 5)).prediction)
            assertEquals(7 to 5, small.width to small.height)
            val timed = xformer.predictTimed(image)
            assertTrue(minOf(timed.preprocessNs, timed.inferenceNs, timed.postprocessNs) > 0)
        }
    }

    @Test
    fun `cancellation is passed on as such`(): Unit = runBlocking {
        XFormer.open(classify, warmUp = false) { StubEngine() }.use { xformer ->
            val call = async(start = CoroutineStart.LAZY) { xformer.classify(image) }
            call.cancel()
            assertFailsWith<CancellationException> { call.await() }
        }
    }

    private fun waitUntil(condition: () -> Boolean) {
        while (!condition()) Thread.sleep(5)
    }

    /** Returns the same logits for each picture; held, the first run waits until it is released. */
    private inner class StubEngine(
        private val hold: Boolean = false,
        private val change: (Map<String, Tensor>) -> Outputs = { it },
    ) : Engine {
        override val report = EngineReport("stub", "1", Format.ONNX, 1, Accelerator.CPU, Accelerator.CPU)
        val threads = mutableSetOf<Thread>()
        val runs = AtomicInteger()
        val inside = AtomicInteger()
        val closings = AtomicInteger()
        val entered = CountDownLatch(1)
        val release = CountDownLatch(1)

        override fun run(image: RgbImage): Outputs {
            check(inside.incrementAndGet() == 1) { "two runs at once" }
            try {
                threads += Thread.currentThread()
                runs.incrementAndGet()
                entered.countDown()
                if (hold) release.await()
                return change(mapOf("logits" to Tensor(intArrayOf(1, 14), FloatArray(14) { it.toFloat() })))
            } finally {
                inside.decrementAndGet()
            }
        }

        override fun close() {
            check(inside.get() == 0) { "closed during a run" }
            threads += Thread.currentThread()
            closings.incrementAndGet()
        }
    }
}
