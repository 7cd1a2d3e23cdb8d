package xformer.mobile.demo.geometry

import xformer.mobile.core.Size

/**
 * How a camera's buffers lie on the screen.
 *
 * A buffer lies as the sensor is built in: turned clockwise by [sensorDegrees] it is upright while the device is in its
 * natural orientation. [displayDegrees] is `Display.getRotation` in degrees. A [front] camera looks at the viewer: its
 * picture turns the other way with the device, and is shown mirrored.
 */
data class CameraGeometry(val sensorDegrees: Int, val displayDegrees: Int, val front: Boolean) {
    init {
        require(sensorDegrees in RIGHT_ANGLES && displayDegrees in RIGHT_ANGLES) {
            "got $sensorDegrees and $displayDegrees degrees; both are 0, 90, 180 or 270"
        }
    }

    /** Clockwise degrees, 0, 90, 180 or 270, by which a buffer is turned to be upright on the screen. */
    val uprightDegrees: Int
        get() = Math.floorMod(if (front) sensorDegrees + displayDegrees else sensorDegrees - displayDegrees, FULL_TURN)

    /** The size of a buffer after it is turned upright. */
    fun upright(buffer: Size): Size = turned(buffer, uprightDegrees)

    /**
     * What `TextureView.setTransform` needs to show a buffer as [ViewTransform] shows the upright picture.
     *
     * The camera service already turns the texture upright for the natural orientation, and mirrors a front camera's;
     * the view stretches that over its whole area. Both hold whatever the display's rotation is.
     */
    fun previewTransform(buffer: Size, view: Size, mode: ScaleMode): Affine {
        val natural = turned(buffer, sensorDegrees)
        val shown = turned(natural, displayDegrees)
        val scale = ViewTransform.scaleOf(shown, view, mode)
        return Affine.scale(natural.width.toDouble() / view.width, natural.height.toDouble() / view.height)
            .then(Affine.translate(-natural.width / 2.0, -natural.height / 2.0))
            .then(Affine.rotate(-displayDegrees))
            .then(Affine.scale(scale, scale))
            .then(Affine.translate(view.width / 2.0, view.height / 2.0))
    }

    private fun turned(size: Size, degrees: Int): Size =
        if (degrees % HALF_TURN == 0) size else Size(size.height, size.width)

    private companion object {
        const val FULL_TURN = 360
        const val HALF_TURN = 180
        val RIGHT_ANGLES = setOf(0, 90, 180, 270)
    }
}
