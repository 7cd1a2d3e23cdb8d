package xformer.mobile.demo.geometry

/** An upright rectangle in pixels; y goes down. Apart from `android.graphics.RectF` so that it runs without Android. */
data class Rectangle(val left: Float, val top: Float, val right: Float, val bottom: Float) {
    val width: Float get() = right - left
    val height: Float get() = bottom - top

    /** Whether the two share an area; touching is not enough. */
    fun overlaps(other: Rectangle): Boolean =
        left < other.right && other.left < right && top < other.bottom && other.top < bottom
}
