package xformer.mobile.demo.geometry

import kotlin.random.Random
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.jupiter.api.Test

class LabelLayoutTest {
    private val view = Rectangle(0f, 0f, 400f, 300f)

    @Test
    fun `a label lies above its box`() {
        assertEquals(Rectangle(50f, 80f, 110f, 100f), place(Rectangle(50f, 100f, 200f, 200f)))
    }

    @Test
    fun `a box at the top has its label inside`() {
        assertEquals(Rectangle(50f, 0f, 110f, 20f), place(Rectangle(50f, 5f, 200f, 200f)))
    }

    @Test
    fun `a box that reaches beyond the view keeps its label in the view`() {
        assertEquals(Rectangle(0f, 0f, 60f, 20f), place(Rectangle(-300f, -300f, 900f, 900f)))
        assertEquals(Rectangle(340f, 30f, 400f, 50f), place(Rectangle(390f, 50f, 500f, 90f)))
    }

    @Test
    fun `two boxes in one place have their labels apart`() {
        val box = Rectangle(50f, 100f, 200f, 200f)
        val places = LabelLayout.place(listOf(box, box, box, box), List(4) { 60f to 20f }, view)
        assertEquals(listOf(80f, 100f, 180f, 200f), places.map { it.top })
    }

    @Test
    fun `where there is no room left, labels lie on each other`() {
        val box = Rectangle(50f, 100f, 200f, 200f)
        val places = LabelLayout.place(List(5) { box }, List(5) { 60f to 20f }, view)
        assertEquals(places.first(), places.last())
    }

    @Test
    fun `a label that is larger than the view is cut to it`() {
        assertEquals(view, LabelLayout.place(listOf(view), listOf(1000f to 900f), view).single())
    }

    @Test
    fun `every label is inside the view, wherever the boxes are`() {
        val random = Random(1)
        repeat(2000) {
            fun side() = random.nextDouble(-1000.0, 1400.0).toFloat()
            val boxes = List(5) { Rectangle(side(), side(), side(), side()) }
            val sizes = List(5) { random.nextDouble(1.0, 600.0).toFloat() to random.nextDouble(1.0, 400.0).toFloat() }
            for (label in LabelLayout.place(boxes, sizes, view)) {
                assertTrue(label.left >= 0 && label.top >= 0, "$label")
                assertTrue(label.right <= 400.01f && label.bottom <= 300.01f, "$label")
                assertTrue(label.width > 0 && label.height > 0, "$label")
            }
        }
    }

    @Test
    fun `each box needs a label`() {
        assertFailsWith<IllegalArgumentException> { LabelLayout.place(listOf(view), emptyList(), view) }
    }

    private fun place(box: Rectangle): Rectangle = LabelLayout.place(listOf(box), listOf(60f to 20f), view).single()
}
