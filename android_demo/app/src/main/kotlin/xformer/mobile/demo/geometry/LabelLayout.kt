package xformer.mobile.demo.geometry

import kotlin.math.min

/** Where the labels of boxes go: inside the view, near their box, and off each other where there is room. */
object LabelLayout {
    /**
     * Place one label for each box, in order: above the box, inside its top, inside its bottom, or below it, at the
     * first of these that no earlier label takes. Where all are taken it is the first, over another label.
     *
     * @param boxes in view pixels; may reach beyond the view.
     * @param sizes widths and heights of the labels in pixels, one for each box; what is larger than the view becomes
     *   as large as the view.
     * @return the labels' places in the order of the boxes, each wholly inside the view.
     */
    fun place(boxes: List<Rectangle>, sizes: List<Pair<Float, Float>>, view: Rectangle): List<Rectangle> {
        require(boxes.size == sizes.size) { "got ${sizes.size} label sizes for ${boxes.size} boxes; give one each" }
        val placed = mutableListOf<Rectangle>()
        for ((box, size) in boxes.zip(sizes)) {
            val width = min(size.first, view.width)
            val height = min(size.second, view.height)
            val left = box.left.coerceIn(view.left, view.right - width)
            val candidates = listOf(box.top - height, box.top, box.bottom - height, box.bottom).map {
                val top = it.coerceIn(view.top, view.bottom - height)
                Rectangle(left, top, left + width, top + height)
            }
            placed += candidates.firstOrNull { candidate -> placed.none(candidate::overlaps) } ?: candidates.first()
        }
        return placed
    }
}
