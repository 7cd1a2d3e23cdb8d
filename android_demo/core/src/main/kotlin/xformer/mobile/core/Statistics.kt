package xformer.mobile.core

import java.util.Locale
import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.min
import kotlin.math.sqrt

/**
 * Of one phase's samples, in nanoseconds; percentiles are interpolated linearly. [spread] is (p90 - p50) / p50.
 *
 * The formulas are those of xformer_mobile/bench/latency_run.py.
 */
public data class Statistics(
    val count: Int,
    val minNs: Long,
    val p50Ns: Double,
    val p90Ns: Double,
    val p99Ns: Double,
    val spread: Double,
) {
    public companion object {
        /**
         * Of one sample or more.
         *
         * @throws BenchmarkException there is none.
         */
        public fun of(samplesNs: LongArray): Statistics {
            if (samplesNs.isEmpty()) throw BenchmarkException("there are no samples to make statistics of")
            val ordered = samplesNs.sortedArray()
            val p50 = percentile(ordered, 0.5)
            val p90 = percentile(ordered, 0.9)
            val p99 = percentile(ordered, 0.99)
            return Statistics(ordered.size, ordered[0], p50, p90, p99, if (p50 != 0.0) (p90 - p50) / p50 else 0.0)
        }
    }
}

/** The median must be known this well, relatively, or the phone was too noisy. */
private const val MEDIAN_WITHIN = 0.03

/** The processes' medians must be within this of their median. */
private const val PROCESSES_WITHIN = 0.05

/** So often, for each run, may the system take the processor away. */
private const val MAX_PREEMPTED = 0.25

private val CALM = listOf("nominal", "none", "light", "fair")

/** Why the inference times can't be relied on, in words; empty where they can. As noise_of in latency_run.py. */
public fun noiseOf(measurement: Measurement): List<String> {
    val inference = measurement.phases.inference
    val samples = inference.samplesNs.toLongArray()
    val reasons = mutableListOf<String>()
    val middle = median(samples)
    val half = if (middle != 0.0) halfWidth(samples) / middle else Double.POSITIVE_INFINITY
    if (half > MEDIAN_WITHIN) {
        val known = if (half.isInfinite()) "is not known at all" else "is known to ${percent(half, 1)} only"
        reasons += "the median of ${samples.size} samples $known, ${percent(MEDIAN_WITHIN, 0)} is asked for"
    }
    val apart = if (middle == 0.0) 0.0 else byProcess(inference).maxOf { abs(median(it) / middle - 1) }
    if (apart > PROCESSES_WITHIN) {
        val allowed = percent(PROCESSES_WITHIN, 0)
        reasons += "a process differs from the others by ${percent(apart, 1)}, $allowed is allowed"
    }
    val preempted = (measurement.disturbances?.preempted ?: 0L).toDouble() / samples.size
    if (preempted > MAX_PREEMPTED) {
        val times = String.format(Locale.ROOT, "%.1f", preempted)
        reasons += "the system took the processor away $times times a run, $MAX_PREEMPTED are allowed"
    }
    if ((measurement.disturbances?.unstableWarmUps ?: 0) > 0) {
        reasons += "the times were still changing when the warm-up was given up"
    }
    val thermalState = measurement.disturbances?.thermalState
    if (thermalState != null && thermalState !in CALM) reasons += "the thermal state was ${thermalState.take(40)}"
    return reasons
}

/** The samples process by process. */
private fun byProcess(phase: Measurement.Phase): List<LongArray> {
    val samples = phase.samplesNs.toLongArray()
    val counts = phase.processes ?: listOf(samples.size)
    if (counts.sum() != samples.size) return listOf(samples)
    var begin = 0
    return counts.map { count -> samples.copyOfRange(begin, begin + count).also { begin += count } }
        .filter { it.isNotEmpty() }
}

internal fun median(samples: LongArray): Double = percentile(samples.sortedArray(), 0.5)

private fun percentile(ordered: LongArray, share: Double): Double {
    val place = share * (ordered.size - 1)
    val low = floor(place).toInt()
    val high = min(low + 1, ordered.size - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
}

/** Half the width of a 95 % interval of the median, from the order statistics (the binomial's normal limit). */
private fun halfWidth(samples: LongArray): Double {
    val count = samples.size
    val away = ceil(0.98 * sqrt(count.toDouble())).toInt() // 1.96 standard deviations of sqrt(count) / 2
    val low = count / 2 - away
    val high = (count - 1) / 2 + away
    if (low < 0 || high >= count) return Double.POSITIVE_INFINITY
    val ordered = samples.sortedArray()
    return (ordered[high] - ordered[low]) / 2.0
}

/** A share as Python's `%` format writes it. */
internal fun percent(share: Double, digits: Int): String = String.format(Locale.ROOT, "%.${digits}f%%", 100 * share)
