package xformer.mobile.demo.results

import kotlin.test.assertEquals
import kotlin.test.assertTrue
import org.junit.jupiter.api.Test
import xformer.mobile.core.Box
import xformer.mobile.core.ClassMap
import xformer.mobile.core.Classification
import xformer.mobile.core.Classifications
import xformer.mobile.core.Detection
import xformer.mobile.core.Detections
import xformer.mobile.core.Rgb

class ResultRowsTest {
    private val palette = List(9) { Rgb(it, it, it) }

    @Test
    fun `classes have their probabilities and no color`() {
        val rows = ResultRows.of(Classifications(List(3) { Classification(it, "class $it", 0.5 - 0.1 * it) }), palette)
        assertEquals(List(3) { ResultRow("class $it", 0.5 - 0.1 * it, null) }, rows.rows)
        assertEquals(0, rows.others)
    }

    @Test
    fun `five boxes are listed, in the colors that they are drawn in, and the others counted`() {
        val rows = ResultRows.of(Detections(List(7) { detection(it % 2) }), palette)
        assertEquals(5, rows.rows.size)
        assertEquals(2, rows.others)
        assertEquals(ClassColors.of(0), rows.rows[0].color)
        assertEquals(ClassColors.of(1), rows.rows[1].color)
        assertEquals(0.5, rows.rows[0].share)
    }

    @Test
    fun `a class map's legend has the largest classes in the palette's colors`() {
        val rows = ResultRows.of(map(0 to 600, 3 to 400), palette)
        assertEquals(listOf(ResultRow("c0", 0.6, palette[0]), ResultRow("c3", 0.4, palette[3])), rows.rows)
        assertEquals(0, rows.others)
        assertEquals(0.0, rows.othersShare, 1e-12)
    }

    @Test
    fun `classes under a percent and beyond the fifth are summed up`() {
        val rows = ResultRows.of(map(0 to 500, 1 to 200, 2 to 100, 3 to 90, 4 to 80, 5 to 21, 6 to 9), palette)
        assertEquals(listOf("c0", "c1", "c2", "c3", "c4"), rows.rows.map { it.label })
        assertEquals(2, rows.others)
        assertEquals(0.03, rows.othersShare, 1e-12)
    }

    @Test
    fun `a percent has a line of its own, less has not`() {
        val rows = ResultRows.of(map(0 to 981, 1 to 10, 2 to 9), palette)
        assertEquals(listOf("c0", "c1"), rows.rows.map { it.label })
        assertEquals(1, rows.others)
    }

    @Test
    fun `others that cover nearly nothing are not mentioned`() {
        val rows = ResultRows.of(map(0 to 996, 1 to 4), palette)
        assertEquals(ResultRows(listOf(ResultRow("c0", 0.996, palette[0])), 0, 0.0), rows)
    }

    @Test
    fun `a large map is drawn smaller, with every n-th pixel`() {
        val map = ClassMap(2100, 2, ShortArray(4200) { (it % 2100 % 3).toShort() }, List(9) { "c$it" })
        val colored = ColoredMap.of(map, palette)
        assertEquals(700 to 1, colored.width to colored.height)
        assertTrue(colored.argb.all { it == ClassColors.argb(palette[0], 144) })
    }

    @Test
    fun `a small map keeps its size`() {
        val map = ClassMap(3, 2, shortArrayOf(0, 1, 2, 3, 4, 5), List(9) { "c$it" })
        val colored = ColoredMap.of(map, palette)
        assertEquals(3 to 2, colored.width to colored.height)
        assertEquals(List(6) { ClassColors.argb(palette[it], 144) }, colored.argb.toList())
    }

    @Test
    fun `colors are packed as Android has them`() {
        assertEquals(0xFF010203.toInt(), ClassColors.argb(Rgb(1, 2, 3)))
        assertEquals(0x80FF0010.toInt(), ClassColors.argb(Rgb(255, 0, 16), alpha = 128))
    }

    private fun detection(index: Int) = Detection(index, "class $index", 0.5f, Box(0f, 0f, 1f, 1f))

    /** A map of 1000 pixels, so many of each class. */
    private fun map(vararg counts: Pair<Int, Int>): ClassMap {
        val classes = counts.flatMap { (index, count) -> List(count) { index.toShort() } }.toShortArray()
        return ClassMap(100, 10, classes, List(9) { "c$it" })
    }
}
