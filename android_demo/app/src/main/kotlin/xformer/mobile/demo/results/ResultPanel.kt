package xformer.mobile.demo.results

import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.ProgressBar
import android.widget.TextView
import kotlin.math.roundToInt
import xformer.mobile.core.ClassMap
import xformer.mobile.core.Classifications
import xformer.mobile.core.Prediction
import xformer.mobile.core.Rgb
import xformer.mobile.demo.R
import xformer.mobile.demo.ui.Figures
import xformer.mobile.demo.ui.ResourceWords

/** The list of results below a picture. [rows] is filled with a view for each line; views are used again. */
class ResultPanel(private val rows: ViewGroup) {
    private val words = ResourceWords(rows.resources)
    private val inflater = LayoutInflater.from(rows.context)

    /** Show a result, or nothing. [palette] is that of a class map. */
    fun show(prediction: Prediction?, palette: List<Rgb>) {
        val result = prediction?.let { ResultRows.of(it, palette) }
        val lines = result?.rows.orEmpty()
        for ((index, line) in lines.withIndex()) fill(view(index), line, bar = prediction is Classifications)
        var used = lines.size
        if (result != null && result.others > 0) {
            fillText(view(used), others(result, prediction is ClassMap))
            used += 1
        }
        for (index in 0 until rows.childCount) {
            rows.getChildAt(index).visibility = if (index < used) View.VISIBLE else View.GONE
        }
    }

    private fun view(index: Int): View =
        rows.getChildAt(index) ?: inflater.inflate(R.layout.row, rows, false).also(rows::addView)

    private fun fill(view: View, line: ResultRow, bar: Boolean) {
        fillText(view, words.text(R.string.result_row, line.label, Figures.percent(words, line.share)))
        line.color?.let {
            val swatch = view.findViewById<View>(R.id.row_swatch)
            swatch.visibility = View.VISIBLE
            swatch.setBackgroundColor(ClassColors.argb(it))
        }
        if (bar) {
            val progress = view.findViewById<ProgressBar>(R.id.row_bar)
            progress.visibility = View.VISIBLE
            progress.progress = (progress.max * line.share).roundToInt()
        }
    }

    private fun fillText(view: View, text: String) {
        view.findViewById<View>(R.id.row_swatch).visibility = View.GONE
        view.findViewById<View>(R.id.row_bar).visibility = View.GONE
        view.findViewById<TextView>(R.id.row_text).text = text
    }

    private fun others(result: ResultRows, isMap: Boolean): String = if (isMap) {
        val share = Figures.percent(words, result.othersShare)
        words.count(R.plurals.result_other_classes, result.others, result.others, share)
    } else {
        words.count(R.plurals.result_others, result.others, result.others)
    }
}
