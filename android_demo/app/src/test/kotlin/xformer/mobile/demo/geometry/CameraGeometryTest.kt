package xformer.mobile.demo.geometry

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import org.junit.jupiter.api.Test
import xformer.mobile.core.Size

/** The preview and what is drawn over it lie right on each other, whatever the sensor, the display and the camera. */
class CameraGeometryTest {
    private val views = listOf(Size(1080, 1920), Size(1920, 1080), Size(800, 800))
    private val angles = listOf(0, 90, 180, 270)

    @Test
    fun `a point of the sensor is shown where the overlay draws it`() {
        for (case in cases()) {
            val (geometry, view, mode) = case
            val preview = Size(1440, 1080)
            val analysis = Size(640, 480)
            val shown = geometry.previewTransform(preview, view, mode)
            val drawn = ViewTransform(geometry.upright(analysis), view, mode, geometry.front)
            for ((across, down) in listOf(0.5 to 0.5, 0.1 to 0.3, 0.9 to 0.2, 0.0 to 1.0)) {
                val texture = inTexture(geometry, view, across, down)
                val (x, y) = shown.map(texture.first, texture.second)
                val upright = turned(analysis, geometry.uprightDegrees, across * analysis.width, down * analysis.height)
                val (expectedX, expectedY) = drawn.affine.map(upright.first, upright.second)
                assertEquals(expectedX, x, 1e-6, "$case, x of ($across, $down)")
                assertEquals(expectedY, y, 1e-6, "$case, y of ($across, $down)")
            }
        }
    }

    @Test
    fun `a phone held upright turns its cameras' pictures by the sensors' angles`() {
        assertEquals(90, CameraGeometry(90, 0, front = false).uprightDegrees)
        assertEquals(270, CameraGeometry(270, 0, front = true).uprightDegrees)
    }

    @Test
    fun `turning the device turns front and back pictures in opposite directions`() {
        // Held with its top to the left, Display.getRotation says 90.
        assertEquals(0, CameraGeometry(90, 90, front = false).uprightDegrees)
        assertEquals(0, CameraGeometry(270, 90, front = true).uprightDegrees)
        assertEquals(180, CameraGeometry(90, 270, front = false).uprightDegrees)
        assertEquals(180, CameraGeometry(270, 270, front = true).uprightDegrees)
    }

    @Test
    fun `a quarter turn exchanges width and height`() {
        assertEquals(Size(480, 640), CameraGeometry(90, 0, front = false).upright(Size(640, 480)))
        assertEquals(Size(640, 480), CameraGeometry(90, 90, front = false).upright(Size(640, 480)))
    }

    @Test
    fun `angles between are refused`() {
        assertFailsWith<IllegalArgumentException> { CameraGeometry(45, 0, front = false) }
        assertFailsWith<IllegalArgumentException> { CameraGeometry(90, 360, front = false) }
    }

    private fun cases(): List<Triple<CameraGeometry, Size, ScaleMode>> = angles.flatMap { sensor ->
        angles.flatMap { display ->
            listOf(false, true).flatMap { front ->
                views.flatMap { view ->
                    ScaleMode.entries.map { Triple(CameraGeometry(sensor, display, front), view, it) }
                }
            }
        }
    }

    /**
     * Where the camera service puts a point of the buffer in an untransformed TextureView: upright for the natural
     * orientation, a front camera's mirrored, stretched over the view. [across] and [down] are shares of the buffer.
     */
    private fun inTexture(geometry: CameraGeometry, view: Size, across: Double, down: Double): Pair<Double, Double> {
        val (x, y) = turned(Size(1, 1), geometry.sensorDegrees, across, down)
        return Pair((if (geometry.front) 1 - x else x) * view.width, y * view.height)
    }

    /** A point of a picture after the picture is turned clockwise. */
    private fun turned(size: Size, degrees: Int, x: Double, y: Double): Pair<Double, Double> = when (degrees) {
        0 -> Pair(x, y)
        90 -> Pair(size.height - y, x)
        180 -> Pair(size.width - x, size.height - y)
        else -> Pair(y, size.width - x)
    }
}
