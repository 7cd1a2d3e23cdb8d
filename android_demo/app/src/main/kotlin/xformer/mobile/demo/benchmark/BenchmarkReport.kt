package xformer.mobile.demo.benchmark

import xformer.mobile.EngineChoice
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Agreement
import xformer.mobile.core.EngineReport
import xformer.mobile.core.Format
import xformer.mobile.core.LatencyRun
import xformer.mobile.core.Measurement
import xformer.mobile.core.OutputComparison
import xformer.mobile.core.ParityResult
import xformer.mobile.core.Tolerance
import xformer.mobile.demo.model.EngineIds

/**
 * One thing to be measured: an artifact on an engine. [engine] is never AUTO.
 *
 * @property problem why it can't be measured here; null where it can.
 */
data class BenchmarkTarget(
    val format: Format,
    val engine: EngineChoice,
    val accelerator: Accelerator,
    val problem: String? = null,
) {
    /** In words for logs and files: "onnx on onnxruntime, cpu". */
    override fun toString(): String = "${format.id} on ${EngineIds.idOf(engine)}, ${accelerator.id}"
}

/** Whether an artifact computes here what the reference model computes; the figures of core's ParityResult. */
data class Parity(
    val images: Int,
    val outputs: List<OutputComparison>,
    val agreement: Agreement,
    val tolerance: Tolerance,
    val misses: List<String>,
) {
    val passed: Boolean get() = misses.isEmpty()

    companion object {
        fun of(result: ParityResult): Parity =
            Parity(result.images, result.outputs, result.agreement, result.tolerance, result.misses)
    }
}

/**
 * What became of one target.
 *
 * @property engine what was really used; null where it could not be opened.
 * @property parity null where the comparison was not finished.
 * @property measurement null where it was not measured.
 * @property error why one of these is missing; null where none is.
 */
data class BenchmarkOutcome(
    val target: BenchmarkTarget,
    val engine: EngineReport?,
    val parity: Parity?,
    val measurement: Measurement?,
    val error: String?,
) {
    /** Whether it was compared and measured, and computes what it should. */
    val passed: Boolean get() = error == null && parity?.passed == true
}

/**
 * What became of all targets.
 *
 * @property run the measurements as one document; null where nothing was measured.
 */
data class BenchmarkReport(val outcomes: List<BenchmarkOutcome>, val run: LatencyRun?) {
    val passed: Boolean get() = outcomes.isNotEmpty() && outcomes.all { it.passed }
}
