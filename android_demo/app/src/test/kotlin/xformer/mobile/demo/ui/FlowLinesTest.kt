package xformer.mobile.demo.ui

import kotlin.test.assertEquals
import org.junit.jupiter.api.Test

class FlowLinesTest {
    @Test
    fun `items fill a line to its end`() {
        assertEquals(listOf(listOf(0, 1, 2)), FlowLines.of(listOf(30, 30, 40), 100))
    }

    @Test
    fun `what does not fit begins the next line`() {
        assertEquals(listOf(listOf(0, 1), listOf(2)), FlowLines.of(listOf(50, 50, 1), 100))
    }

    @Test
    fun `what is wider than a line has one to itself`() {
        assertEquals(listOf(listOf(0), listOf(1), listOf(2)), FlowLines.of(listOf(10, 500, 10), 100))
    }

    @Test
    fun `nothing needs no line`() {
        assertEquals(emptyList(), FlowLines.of(emptyList(), 100))
    }
}
