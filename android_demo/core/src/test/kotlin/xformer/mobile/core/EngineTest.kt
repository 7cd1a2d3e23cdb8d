package xformer.mobile.core

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.Timeout
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread
import kotlin.random.Random
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

/** An engine that computes with [compute], and sees to it that nobody runs it twice at once or after its end. */
class FakeEngine(private val compute: (RgbImage) -> Outputs) : Engine {
    override val report = EngineReport("fake", "1", Format.ONNX, 2, Accelerator.CPU, Accelerator.CPU)
    val closed = AtomicInteger()
    private val running = AtomicInteger()

    override fun run(image: RgbImage): Outputs {
        check(running.getAndIncrement() == 0) { "two runs at once" }
        check(closed.get() == 0) { "a run after the end" }
        try {
            return compute(image)
        } finally {
            running.decrementAndGet()
        }
    }

    override fun close() {
        check(running.get() == 0) { "closed during a run" }
        closed.incrementAndGet()
    }
}

/** The mean of each channel as logits: cat is red, dog is green, cup is blue. */
fun meanColor(image: RgbImage): Outputs {
    val sums = FloatArray(3)
    image.bytes.forEachIndexed { i, byte -> sums[i % 3] += (byte.toInt() and 0xff).toFloat() }
    return mapOf("logits" to Tensor(intArrayOf(1, 3), FloatArray(3) { sums[it] / (image.bytes.size / 3) }))
}

@Timeout(120)
class EngineTest {
    @TempDir
    lateinit var temporary: File

    private val shapes = mapOf("logits" to intArrayOf(1, 3))
    private val image = RgbImage(64, 64, ByteArray(3 * 64 * 64))

    private fun checked(engine: Engine) = CheckedEngine(engine, ImageSize(64, 64), shapes)

    private fun tensor(vararg shape: Int) = Tensor(shape, FloatArray(shape.reduce(Int::times)))

    private val foreign = mapOf(
        "none" to emptyMap(),
        "of another name" to mapOf("scores" to tensor(1, 3)),
        "of another shape" to mapOf("logits" to tensor(1, 4)),
        "of another rank" to mapOf("logits" to tensor(1, 3, 1)),
        "one too many" to mapOf("logits" to tensor(1, 3), "more" to tensor(1, 3)),
    )

    @TestFactory
    fun `outputs that are not declared are refused`(): List<DynamicTest> = foreign.map { (name, outputs) ->
        dynamicTest(name) {
            val message = refusal<BundleException> { checked(FakeEngine { outputs }).run(image) }
            assertContains(message, "the manifest declares {logits=(1, 3)}")
        }
    }

    @Test
    fun `a picture of another size is refused`() {
        val wide = RgbImage(128, 64, ByteArray(3 * 128 * 64))
        val message = refusal<ImageException> { checked(FakeEngine(::meanColor)).run(wide) }
        assertEquals("got a picture of 64x128; the model takes 64x64", message)
    }

    @Test
    fun `an engine's own exception is an EngineException`() {
        val message = refusal<EngineException> { checked(FakeEngine { error("no memory left") }).run(image) }
        assertEquals("fake failed: no memory left", message)
        assertFailsWith<BundleException> { checked(FakeEngine { throw BundleException("odd") }).run(image) }
    }

    @Test
    fun `closing twice closes once, and a closed engine does not run`() {
        val inner = FakeEngine(::meanColor)
        val engine = checked(inner)
        engine.run(image)
        engine.close()
        engine.close()
        assertEquals(1, inner.closed.get())
        assertContains(refusal<UsageException> { engine.run(image) }, "is closed")
        assertEquals("fake", engine.report.engine)
    }

    @Test
    fun `no threads are refused`() {
        assertFailsWith<UsageException> { EngineOptions(threads = 0) }
    }

    // ---- predictor ------------------------------------------------------------------------------------------

    private fun predictor(engine: Engine, task: Task = Task.CLASSIFY) =
        Predictor(Bundle.open(writeBundle(File(temporary, task.id), task)), engine)

    private fun color(index: Int) = RgbImage(80, 70, ByteArray(3 * 80 * 70) { if (it % 3 == index) 90 else 10 })

    @Test
    fun `a prediction and its times`() {
        predictor(FakeEngine(::meanColor)).use { predictor ->
            val timed = predictor.predictTimed(color(1))
            val best = (timed.prediction as Classifications).first()
            assertEquals("dog", best.label)
            assertTrue(best.probability > 0.99)
            assertTrue(listOf(timed.preprocessNs, timed.inferenceNs, timed.postprocessNs).all { it >= 0 })
            assertEquals(timed.prediction, predictor.predict(color(1)))
        }
    }

    @Test
    fun `a class map of the picture's size or of a preview's`() {
        val outputs = mapOf("logits" to Tensor(intArrayOf(1, 3, 16, 16), Drawn(1).floats(768)))
        predictor(FakeEngine { outputs }, Task.SEGMENT).use { predictor ->
            val map = predictor.predict(color(0)) as ClassMap
            assertEquals(Size(80, 70), Size(map.width, map.height))
            val small = predictor.predictTimed(color(0), mapSize = Size(20, 10)).prediction as ClassMap
            assertEquals(Size(20, 10), Size(small.width, small.height))
        }
        predictor(FakeEngine(::meanColor)).use { predictor ->
            assertTrue(predictor.predictTimed(color(0), mapSize = Size(20, 10)).prediction is Classifications)
        }
    }

    @Test
    fun `outputs that are not finite are refused`() {
        val nan = mapOf("logits" to Tensor(intArrayOf(1, 3), floatArrayOf(0f, Float.NaN, 0f)))
        predictor(FakeEngine { nan }).use { predictor ->
            assertContains(refusal<BundleException> { predictor.predict(color(0)) }, "NaN or infinite")
        }
    }

    @Test
    fun `many threads get their own results`() {
        val predictor = predictor(FakeEngine(::meanColor))
        val wrong = ConcurrentLinkedQueue<String>()
        val threads = List(8) { number ->
            thread {
                val random = Random(number)
                repeat(25) {
                    val index = random.nextInt(3)
                    val found = runCatching { (predictor.predict(color(index)) as Classifications).first().index }
                    if (found.getOrNull() != index) wrong += "$index gave $found"
                }
            }
        }
        threads.forEach(Thread::join)
        predictor.close()
        assertEquals(emptyList(), wrong.toList())
    }

    @Test
    fun `closing waits for the run`() {
        val started = CountDownLatch(1)
        val release = CountDownLatch(1)
        val engine = FakeEngine {
            started.countDown()
            release.await()
            meanColor(it)
        }
        val predictor = predictor(engine)
        val result = ConcurrentLinkedQueue<Result<Prediction>>()
        val running = thread { result += runCatching { predictor.predict(color(2)) } }
        started.await()
        val closing = thread { predictor.close() }
        closing.join(200)
        assertTrue(closing.isAlive)
        assertEquals(0, engine.closed.get())
        release.countDown()
        running.join()
        closing.join()
        assertEquals(1, engine.closed.get())
        assertEquals("cup", (result.single().getOrThrow() as Classifications).first().label)
        assertContains(refusal<UsageException> { predictor.predict(color(2)) }, "is closed")
    }

    @Test
    fun `closing while many threads predict ends each with a result or a clean refusal`() {
        forSeeds(20) { random ->
            val engine = FakeEngine(::meanColor)
            val predictor = predictor(engine)
            val odd = ConcurrentLinkedQueue<Throwable>()
            val begun = CountDownLatch(4)
            val threads = List(4) {
                thread {
                    begun.countDown()
                    val error = runCatching { while (true) predictor.predict(color(0)) }.exceptionOrNull()
                    if (error !is UsageException) odd += checkNotNull(error)
                }
            }
            begun.await(5, TimeUnit.SECONDS)
            Thread.sleep(random.nextLong(5))
            predictor.close()
            threads.forEach(Thread::join)
            assertNull(odd.peek())
            assertEquals(1, engine.closed.get())
        }
    }
}
