package xformer.mobile.demo.benchmark

import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import org.junit.jupiter.api.Test

class HeadlessRunsTest {
    @Test
    fun `one runs at a time, and another may follow`() {
        assertTrue(HeadlessRuns.begin())
        assertFalse(HeadlessRuns.begin())
        val step = BenchmarkStep.Comparing(target(), 0, 1)
        HeadlessRuns.tell(step)
        assertEquals(HeadlessPhase.Running(step), HeadlessRuns.phase.value)
        assertFalse(HeadlessRuns.begin())
        val status = HeadlessStatus.error("no")
        HeadlessRuns.end(status)
        assertEquals(HeadlessPhase.Done(status), HeadlessRuns.phase.value)
        assertTrue(HeadlessRuns.begin())
        HeadlessRuns.end(status)
    }
}
