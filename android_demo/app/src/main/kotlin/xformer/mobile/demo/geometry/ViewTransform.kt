package xformer.mobile.demo.geometry

import kotlin.math.max
import kotlin.math.min
import xformer.mobile.core.Size

/** How a picture is put into a view of another shape. */
enum class ScaleMode {
    /** It covers the view; what reaches beyond is cut off. */
    CROP,

    /** The whole of it is seen, between empty strips. */
    LETTERBOX,
}

/**
 * From pixels of an upright picture to pixels of the view that shows it, in its middle.
 *
 * @property source the picture's size.
 * @property view the view's size.
 * @property mirrored whether left and right are exchanged, as people expect of a front camera.
 */
data class ViewTransform(val source: Size, val view: Size, val mode: ScaleMode, val mirrored: Boolean) {
    /** View pixels for one source pixel. */
    val scale: Double = scaleOf(source, view, mode)

    /** The same as a map. */
    val affine: Affine =
        Affine.translate(-source.width / 2.0, -source.height / 2.0)
            .then(Affine.scale(if (mirrored) -scale else scale, scale))
            .then(Affine.translate(view.width / 2.0, view.height / 2.0))

    /** Where the whole picture comes to; reaches beyond the view where it is cropped. */
    val picture: Rectangle
        get() = map(Rectangle(0f, 0f, source.width.toFloat(), source.height.toFloat()))

    /** A box in source pixels, in view pixels. */
    fun map(box: Rectangle): Rectangle = affine.map(box)

    companion object {
        internal fun scaleOf(source: Size, view: Size, mode: ScaleMode): Double {
            val across = view.width.toDouble() / source.width
            val down = view.height.toDouble() / source.height
            return if (mode == ScaleMode.CROP) max(across, down) else min(across, down)
        }
    }
}
