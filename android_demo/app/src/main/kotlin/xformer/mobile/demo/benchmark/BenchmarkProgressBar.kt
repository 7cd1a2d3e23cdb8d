package xformer.mobile.demo.benchmark

import xformer.mobile.core.BenchmarkProgress

/** What a benchmark does now. */
sealed interface BenchmarkStep {
    val target: BenchmarkTarget

    /** The comparison with the reference: [done] of [of] golden pictures. */
    data class Comparing(override val target: BenchmarkTarget, val done: Int, val of: Int) : BenchmarkStep

    /** The measurement. */
    data class Timing(override val target: BenchmarkTarget, val progress: BenchmarkProgress) : BenchmarkStep
}

/** How far a benchmark of [targets] is, 0..1. It never goes back. Not thread-safe. */
class BenchmarkProgressBar(private val targets: List<BenchmarkTarget>) {
    private var last = 0.0

    /** The share that is done when [step] begins. */
    fun at(step: BenchmarkStep): Double {
        val (phase, done, of) = when (step) {
            is BenchmarkStep.Comparing -> Triple("parity", step.done, step.of)
            is BenchmarkStep.Timing -> Triple(step.progress.phase, step.progress.done, step.progress.of)
        }
        val (begin, end) = PHASES[phase] ?: return last
        val part = begin + (end - begin) * done / of.coerceAtLeast(1)
        last = maxOf(last, (targets.indexOf(step.target) + part) / targets.size)
        return last
    }

    private companion object {
        /** Where each phase begins and ends within a target. */
        val PHASES = mapOf(
            "parity" to (0.0 to 0.2),
            "load" to (0.2 to 0.2),
            "warm_up" to (0.2 to 0.3),
            "inference" to (0.3 to 0.9),
            "preprocess" to (0.9 to 0.95),
            "postprocess" to (0.95 to 1.0),
        )
    }
}
