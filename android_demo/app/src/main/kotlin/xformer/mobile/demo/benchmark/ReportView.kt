package xformer.mobile.demo.benchmark

import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.TableLayout
import android.widget.TableRow
import android.widget.TextView
import xformer.mobile.demo.R
import xformer.mobile.demo.ui.ResourceWords

/** Fills [parent] with what became of each target of a benchmark. */
class ReportView(private val parent: ViewGroup) {
    private val text = OutcomeText(ResourceWords(parent.resources))
    private val inflater = LayoutInflater.from(parent.context)

    /** Show a report; null takes it away. */
    fun show(report: BenchmarkReport?) {
        parent.removeAllViews()
        for (outcome in report?.outcomes.orEmpty()) {
            val view = inflater.inflate(R.layout.measured, parent, false)
            fill(view, outcome)
            parent.addView(view)
        }
    }

    private fun fill(view: View, outcome: BenchmarkOutcome) {
        view.findViewById<TextView>(R.id.measured_title).text = text.title(outcome.target)
        val verdict = view.findViewById<TextView>(R.id.measured_parity)
        verdict.text = text.verdict(outcome)
        verdict.setTextColor(
            view.context.getColor(
                when (outcome.parity?.passed) {
                    true -> R.color.good
                    false -> R.color.bad
                    null -> R.color.text
                },
            ),
        )
        view.findViewById<TextView>(R.id.measured_details).text = text.details(outcome)
        val table = view.findViewById<TableLayout>(R.id.measured_table)
        text.table(outcome).forEach { table.addView(row(table, it)) }
        view.findViewById<TextView>(R.id.measured_notes).text = text.notes(outcome)
    }

    private fun row(table: TableLayout, cells: List<String>): TableRow {
        val row = TableRow(table.context)
        for ((column, cell) in cells.withIndex()) {
            val view = inflater.inflate(R.layout.cell, row, false) as TextView
            view.text = cell
            if (column == 0) view.textAlignment = View.TEXT_ALIGNMENT_VIEW_START // words; the others are numbers
            row.addView(view)
        }
        return row
    }
}
