package xformer.mobile.demo.geometry

import kotlin.test.assertEquals
import org.junit.jupiter.api.Test
import xformer.mobile.core.Size

class ViewTransformTest {
    private val whole = Rectangle(0f, 0f, 640f, 480f)

    @Test
    fun `cropping covers the view and cuts the longer side off evenly`() {
        val transform = ViewTransform(Size(640, 480), Size(480, 960), ScaleMode.CROP, mirrored = false)
        assertEquals(2.0, transform.scale)
        assertEquals(Rectangle(-400f, 0f, 880f, 960f), transform.map(whole))
    }

    @Test
    fun `letterboxing shows all of it between even strips`() {
        val transform = ViewTransform(Size(640, 480), Size(320, 960), ScaleMode.LETTERBOX, mirrored = false)
        assertEquals(0.5, transform.scale)
        assertEquals(Rectangle(0f, 360f, 320f, 600f), transform.map(whole))
        assertEquals(Rectangle(0f, 360f, 320f, 600f), transform.picture)
    }

    @Test
    fun `mirroring exchanges left and right and nothing else`() {
        val box = Rectangle(10f, 20f, 110f, 220f)
        val transform = ViewTransform(Size(640, 480), Size(640, 480), ScaleMode.CROP, mirrored = true)
        assertEquals(Rectangle(530f, 20f, 630f, 220f), transform.map(box))
    }

    @Test
    fun `a view of the same size changes nothing`() {
        val box = Rectangle(1f, 2f, 3f, 4f)
        val transform = ViewTransform(Size(7, 9), Size(7, 9), ScaleMode.LETTERBOX, mirrored = false)
        assertEquals(box, transform.map(box))
    }

    @Test
    fun `maps are applied in order`() {
        val map = Affine.translate(1.0, 2.0).then(Affine.rotate(90)).then(Affine.scale(2.0, 3.0))
        val (x, y) = map.map(4.0, 5.0)
        // (4, 5) moves to (5, 7), turns clockwise to (-7, 5), and grows to (-14, 15).
        assertEquals(-14.0, x, 1e-9)
        assertEquals(15.0, y, 1e-9)
    }

    @Test
    fun `the values are those of a matrix, row by row`() {
        val values = Affine(1.0, 2.0, 3.0, 4.0, 5.0, 6.0).values()
        assertEquals(listOf(1f, 2f, 3f, 4f, 5f, 6f, 0f, 0f, 1f), values.toList())
    }
}
