package xformer.mobile.demo.ui

import android.content.Context
import android.util.AttributeSet
import android.view.View
import android.view.ViewGroup
import kotlin.math.max

/** Puts its children in lines, from the start of the reading direction; buttons with large text go to a next line. */
class FlowLayout(context: Context, attributes: AttributeSet?) : ViewGroup(context, attributes) {
    private val shown: List<View>
        get() = (0 until childCount).map(::getChildAt).filter { it.visibility != GONE }

    override fun onMeasure(widthSpec: Int, heightSpec: Int) {
        val across = paddingLeft + paddingRight
        val available = if (MeasureSpec.getMode(widthSpec) == MeasureSpec.UNSPECIFIED) {
            Int.MAX_VALUE / 2
        } else {
            max(0, MeasureSpec.getSize(widthSpec) - across)
        }
        val children = shown
        for (child in children) {
            child.measure(
                MeasureSpec.makeMeasureSpec(available, MeasureSpec.AT_MOST),
                getChildMeasureSpec(heightSpec, paddingTop + paddingBottom, child.layoutParams.height),
            )
        }
        val lines = linesOf(children, available)
        val width = lines.maxOfOrNull { line -> line.sumOf { it.measuredWidth } } ?: 0
        val height = lines.sumOf(::heightOf)
        setMeasuredDimension(
            resolveSize(max(suggestedMinimumWidth, width + across), widthSpec),
            resolveSize(max(suggestedMinimumHeight, height + paddingTop + paddingBottom), heightSpec),
        )
    }

    override fun onLayout(changed: Boolean, left: Int, top: Int, right: Int, bottom: Int) {
        val available = right - left - paddingLeft - paddingRight
        val fromRight = layoutDirection == LAYOUT_DIRECTION_RTL
        var y = paddingTop
        for (line in linesOf(shown, available)) {
            var x = 0
            for (child in line) {
                val start = if (fromRight) paddingLeft + available - x - child.measuredWidth else paddingLeft + x
                child.layout(start, y, start + child.measuredWidth, y + child.measuredHeight)
                x += child.measuredWidth
            }
            y += heightOf(line)
        }
    }

    override fun generateLayoutParams(attributes: AttributeSet): LayoutParams = LayoutParams(context, attributes)

    override fun shouldDelayChildPressedState(): Boolean = false

    private fun linesOf(children: List<View>, available: Int): List<List<View>> =
        FlowLines.of(children.map { it.measuredWidth }, available).map { line -> line.map(children::get) }

    private fun heightOf(line: List<View>): Int = line.maxOf { it.measuredHeight }
}
