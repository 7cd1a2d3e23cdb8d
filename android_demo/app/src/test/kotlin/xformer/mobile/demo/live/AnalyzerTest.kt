package xformer.mobile.demo.live

import java.util.concurrent.atomic.AtomicInteger
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancel
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.test.TestScope
import kotlinx.coroutines.test.UnconfinedTestDispatcher
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Test

/** Frames as the camera gives them; each must be closed exactly once. */
private class FakeFrame(val number: Int) : AutoCloseable {
    val closed = AtomicInteger()

    override fun close() {
        closed.incrementAndGet()
    }
}

@OptIn(ExperimentalCoroutinesApi::class)
class AnalyzerTest {
    private val frames = List(6, ::FakeFrame)
    private val delivered = mutableListOf<Result<Int>>()

    private fun closed(): List<Int> = frames.map { it.closed.get() }

    private fun unconfined(block: suspend TestScope.(CoroutineScope) -> Unit) = runTest {
        val scope = CoroutineScope(UnconfinedTestDispatcher(testScheduler) + Job())
        block(scope)
        scope.cancel()
    }

    @Test
    fun `the newest frame is next, those between are dropped`() = unconfined { scope ->
        val gates = List(6) { CompletableDeferred<Unit>() }
        val analyzer = Analyzer<FakeFrame, Int>(
            scope,
            { frame ->
                gates[frame.number].await()
                frame.number
            },
            delivered::add,
        )
        frames.take(4).forEach(analyzer::offer)
        assertEquals(listOf(0, 1, 1, 0, 0, 0), closed())
        gates[0].complete(Unit)
        gates[3].complete(Unit)
        assertEquals(listOf(0, 3), delivered.map { it.getOrThrow() })
        assertEquals(listOf(1, 1, 1, 1, 0, 0), closed())
    }

    @Test
    fun `a frame that fails is closed, and the next one is analyzed`() = unconfined { scope ->
        val analyzer = Analyzer<FakeFrame, Int>(
            scope,
            { frame ->
                check(frame.number > 0) { "broken" }
                frame.number
            },
            delivered::add,
        )
        analyzer.offer(frames[0])
        analyzer.offer(frames[1])
        assertEquals("broken", delivered[0].exceptionOrNull()?.message)
        assertEquals(1, delivered[1].getOrThrow())
        assertEquals(listOf(1, 1, 0, 0, 0, 0), closed())
    }

    @Test
    fun `closing closes the frame that runs, the one that waits and those that come`() = unconfined { scope ->
        val analyzer = Analyzer<FakeFrame, Int>(
            scope,
            { frame ->
                CompletableDeferred<Unit>().await()
                frame.number
            },
            delivered::add,
        )
        analyzer.offer(frames[0])
        analyzer.offer(frames[1])
        analyzer.close()
        analyzer.offer(frames[2])
        assertEquals(listOf(1, 1, 1, 0, 0, 0), closed())
        assertTrue(delivered.isEmpty())
    }

    @Test
    fun `when its scope ends, frames that come are closed`() = unconfined { scope ->
        val analyzer = Analyzer<FakeFrame, Int>(scope, { it.number }, delivered::add)
        scope.cancel()
        analyzer.offer(frames[0])
        assertEquals(1, frames[0].closed.get())
    }

    @Test
    fun `no frame is closed twice or never, whatever the threads do`() = runBlocking {
        repeat(50) {
            val many = List(200, ::FakeFrame)
            val job = Job()
            val analyzer = Analyzer<FakeFrame, Int>(CoroutineScope(Dispatchers.Default + job), { it.number }, {})
            val camera = Thread { many.forEach(analyzer::offer) }
            camera.start()
            if (it % 2 == 0) analyzer.close()
            camera.join()
            analyzer.close()
            job.cancelAndJoin()
            assertEquals(List(200) { 1 }, many.map { frame -> frame.closed.get() })
        }
    }
}
