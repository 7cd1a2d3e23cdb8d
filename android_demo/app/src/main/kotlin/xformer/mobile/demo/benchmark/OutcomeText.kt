package xformer.mobile.demo.benchmark

import java.util.Locale
import xformer.mobile.core.OutputComparison
import xformer.mobile.core.Tolerance
import xformer.mobile.demo.R
import xformer.mobile.demo.model.EngineIds
import xformer.mobile.demo.model.EngineText
import xformer.mobile.demo.ui.Figures
import xformer.mobile.demo.ui.Words

/** What became of a target, in the words of the benchmark's screen. */
class OutcomeText(private val words: Words) {
    /** What was measured: format, engine, accelerator. */
    fun title(target: BenchmarkTarget): String = words.text(
        R.string.benchmark_target,
        target.format.id,
        words.text(EngineIds.text(target.engine)),
        words.text(EngineIds.text(target.accelerator)),
    )

    /** PASS, FAIL or not known. */
    fun verdict(outcome: BenchmarkOutcome): String = words.text(
        when (outcome.parity?.passed) {
            true -> R.string.parity_pass
            false -> R.string.parity_fail
            null -> R.string.parity_unknown
        },
    )

    /** The engine that was used, and the figures behind the verdict, one a line. */
    fun details(outcome: BenchmarkOutcome): String = buildList {
        outcome.engine?.let { add(EngineText.of(it, words)) }
        outcome.parity?.let { parity ->
            add(words.count(R.plurals.parity_images, parity.images, parity.images))
            parity.outputs.forEach { add(output(it)) }
            val share = words.text(R.string.percent_exact, 100 * parity.agreement.share)
            add(words.text(R.string.parity_agreement, parity.agreement.name, share))
            add(words.text(R.string.parity_tolerance, tolerance(parity.tolerance)))
            addAll(parity.misses)
        }
        outcome.error?.let { add(words.text(R.string.benchmark_refused, it)) }
    }.joinToString("\n")

    /** The times: a line of headings, then one for each phase; the first cell of a line says what it is. */
    fun table(outcome: BenchmarkOutcome): List<List<String>> {
        val statistics = outcome.measurement?.statistics() ?: return emptyList()
        val lines = statistics.map { (phase, of) ->
            listOf(PHASES[phase]?.let { words.text(it) } ?: phase, of.count.toString()) +
                listOf(of.minNs.toDouble(), of.p50Ns, of.p90Ns, of.p99Ns).map { Figures.milliseconds(words, it) } +
                Figures.percent(words, of.spread)
        }
        return listOf(HEADINGS.map { words.text(it) }) + lines
    }

    /** Why the times can't be relied on, or that they can; and how hot the device was. */
    fun notes(outcome: BenchmarkOutcome): String {
        val disturbances = outcome.measurement?.disturbances ?: return ""
        val noise = disturbances.tooNoisy.orEmpty().map { words.text(R.string.noise, it) }
        val thermal =
            disturbances.thermalState?.let { words.text(R.string.thermal, it) } ?: words.text(R.string.thermal_unknown)
        return (noise.ifEmpty { listOf(words.text(R.string.noise_none)) } + thermal).joinToString("\n")
    }

    private fun output(output: OutputComparison): String {
        val difference = String.format(Locale.ROOT, "%.1e", output.relativeMax)
        val snr = if (output.snrDb == Double.POSITIVE_INFINITY) {
            words.text(R.string.decibels_equal)
        } else {
            words.text(R.string.decibels, output.snrDb)
        }
        return words.text(R.string.parity_output, output.name, difference, snr)
    }

    private fun tolerance(tolerance: Tolerance): String = buildList {
        if (tolerance.relativeMax.isFinite()) {
            val difference = String.format(Locale.ROOT, "%.1e", tolerance.relativeMax)
            add(words.text(R.string.tolerance_difference, difference))
        }
        if (tolerance.snrDb.isFinite()) add(words.text(R.string.tolerance_snr, tolerance.snrDb))
        if (tolerance.agreement > 0) {
            val share = words.text(R.string.percent_exact, 100 * tolerance.agreement)
            add(words.text(R.string.tolerance_agreement, share))
        }
    }.joinToString(words.text(R.string.list_separator))

    private companion object {
        val HEADINGS = listOf(
            R.string.table_phase,
            R.string.table_samples,
            R.string.table_min,
            R.string.table_median,
            R.string.table_p90,
            R.string.table_p99,
            R.string.table_spread,
        )

        val PHASES = mapOf(
            "load" to R.string.phase_load,
            "first_run" to R.string.phase_first_run,
            "preprocess" to R.string.phase_preprocess,
            "inference" to R.string.phase_inference,
            "postprocess" to R.string.phase_postprocess,
        )
    }
}
