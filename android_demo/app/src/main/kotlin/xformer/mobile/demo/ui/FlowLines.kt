package xformer.mobile.demo.ui

/** How items of given widths fill lines, one after the other; what is wider than a line has one to itself. */
object FlowLines {
    /**
     * @param widths of the items, in pixels.
     * @param available the width of a line.
     * @return the items' indices, line by line.
     */
    fun of(widths: List<Int>, available: Int): List<List<Int>> {
        val lines = mutableListOf<MutableList<Int>>()
        var used = 0
        for ((index, width) in widths.withIndex()) {
            if (lines.isEmpty() || used + width > available) {
                lines += mutableListOf<Int>()
                used = 0
            }
            lines.last() += index
            used += width
        }
        return lines
    }
}
