package xformer.mobile.demo.benchmark

import kotlin.test.assertEquals
import kotlin.test.assertIs
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.test.StandardTestDispatcher
import kotlinx.coroutines.test.TestScope
import kotlinx.coroutines.test.runCurrent
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Test

@OptIn(ExperimentalCoroutinesApi::class)
class BenchmarkStateTest {
    private val targets = listOf(target())
    private val step = BenchmarkStep.Comparing(target(), 1, 2)
    private val report = BenchmarkReport(emptyList(), null)

    private fun state(test: TestScope) = BenchmarkState(StandardTestDispatcher(test.testScheduler))

    @Test
    fun `it runs, tells its steps and is done`() = runTest {
        val state = state(this)
        assertEquals(BenchmarkPhase.Idle, state.phase.value)
        var seen: BenchmarkPhase? = null
        state.start(targets) { tell ->
            tell(step)
            seen = state.phase.value
            report
        }
        assertEquals(BenchmarkPhase.Running(null, 0.0), state.phase.value)
        runCurrent()
        assertEquals(step, assertIs<BenchmarkPhase.Running>(seen).step)
        assertEquals(BenchmarkPhase.Done(report), state.phase.value)
    }

    @Test
    fun `cancelling ends it at its next step`() = runTest {
        val state = state(this)
        state.start(targets) { tell ->
            state.cancel()
            tell(step)
            report
        }
        runCurrent()
        assertEquals(BenchmarkPhase.Cancelled, state.phase.value)
    }

    @Test
    fun `one that is cancelled before it begins does not begin, and another can be started`() = runTest {
        val state = state(this)
        state.start(targets) { error("it has begun") }
        state.cancel()
        runCurrent()
        assertEquals(BenchmarkPhase.Cancelled, state.phase.value)
        state.start(targets) { report }
        runCurrent()
        assertEquals(BenchmarkPhase.Done(report), state.phase.value)
    }

    @Test
    fun `what goes wrong is told, and another can be started`() = runTest {
        val state = state(this)
        state.start(targets) { throw IllegalStateException("no bundle") }
        runCurrent()
        assertEquals(BenchmarkPhase.Failed("no bundle"), state.phase.value)
        state.start(targets) { report }
        runCurrent()
        assertEquals(BenchmarkPhase.Done(report), state.phase.value)
    }

    @Test
    fun `only one runs at a time`() = runTest {
        val state = state(this)
        var begun = 0
        repeat(2) {
            state.start(targets) {
                begun += 1
                report
            }
        }
        runCurrent()
        assertEquals(1, begun)
    }
}
