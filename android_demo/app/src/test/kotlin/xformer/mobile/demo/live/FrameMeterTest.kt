package xformer.mobile.demo.live

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import org.junit.jupiter.api.Test

class FrameMeterTest {
    private val meter = FrameMeter(window = 4)

    @Test
    fun `a rate needs two frames, a median one`() {
        assertNull(meter.framesPerSecond)
        assertNull(meter.medianInferenceNs)
        meter.add(1_000_000_000, 5)
        assertNull(meter.framesPerSecond)
        assertEquals(5.0, meter.medianInferenceNs)
    }

    @Test
    fun `frames that are 50 ms apart are 20 a second`() {
        repeat(4) { meter.add(it * 50_000_000L, 1) }
        assertEquals(20.0, meter.framesPerSecond)
    }

    @Test
    fun `only the last frames count`() {
        meter.add(0, 1_000_000)
        repeat(4) { meter.add(10_000_000_000 + it * 100_000_000L, 10L + it) }
        assertEquals(10.0, meter.framesPerSecond)
        assertEquals(11.5, meter.medianInferenceNs)
    }

    @Test
    fun `one slow frame does not move the median`() {
        listOf(10L, 1_000_000L, 12L).forEachIndexed { index, took -> meter.add(index.toLong(), took) }
        assertEquals(12.0, meter.medianInferenceNs)
    }

    @Test
    fun `frames of one moment have no rate`() {
        repeat(3) { meter.add(7, 1) }
        assertNull(meter.framesPerSecond)
    }

    @Test
    fun `after a reset it begins anew`() {
        repeat(4) { meter.add(it * 50_000_000L, 1) }
        meter.reset()
        assertNull(meter.framesPerSecond)
        assertNull(meter.medianInferenceNs)
    }

    @Test
    fun `a window of one frame has no rate and is refused`() {
        assertFailsWith<IllegalArgumentException> { FrameMeter(1) }
    }
}
