package xformer.mobile.demo.benchmark

import kotlinx.coroutines.CancellationException
import xformer.mobile.core.Artifact
import xformer.mobile.core.Benchmark
import xformer.mobile.core.BenchmarkProbe
import xformer.mobile.core.BenchmarkSettings
import xformer.mobile.core.Bundle
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineReport
import xformer.mobile.core.GoldenReplay
import xformer.mobile.core.LatencyRun
import xformer.mobile.core.Machine
import xformer.mobile.core.PictureDecoder

/**
 * Compares and measures a bundle's artifacts, one after the other. Blocks.
 *
 * @param open opens an artifact in the engine of a target.
 * @param machine is asked once, when a benchmark begins.
 */
class BenchmarkRunner(
    private val bundle: Bundle,
    private val open: (Artifact, BenchmarkTarget) -> Engine,
    private val decoder: PictureDecoder,
    private val machine: () -> Machine,
    private val probe: BenchmarkProbe,
) {
    /**
     * Compare each target with the reference and measure it. One that fails does not keep the others from being
     * measured. [report] is called often; the [CancellationException] that it throws ends the benchmark.
     */
    fun run(
        targets: List<BenchmarkTarget>,
        settings: BenchmarkSettings,
        report: (BenchmarkStep) -> Unit,
    ): BenchmarkReport {
        val about = machine()
        val runs = mutableListOf<LatencyRun>()
        val outcomes = targets.map { target ->
            var outcome = BenchmarkOutcome(target, null, null, null, target.problem)
            if (target.problem == null) {
                val problems = listOfNotNull(
                    problemOf {
                        val (engine, parity) = compare(target, report)
                        outcome = outcome.copy(engine = engine, parity = parity)
                    },
                    // Also where there is nothing to compare with.
                    problemOf {
                        val run = measure(target, settings, about, report)
                        runs += run
                        outcome = outcome.copy(measurement = run.measurements.single())
                    },
                )
                outcome = outcome.copy(error = problems.distinct().joinToString("; ").ifEmpty { null })
            }
            outcome
        }
        val tools = outcomes.mapNotNull { it.engine }.associate { it.engine to it.version }
        val all = runs.firstOrNull()?.copy(tools = tools, measurements = runs.flatMap { it.measurements })
        return BenchmarkReport(outcomes, all)
    }

    private fun compare(target: BenchmarkTarget, report: (BenchmarkStep) -> Unit): Pair<EngineReport, Parity> {
        report(BenchmarkStep.Comparing(target, 0, bundle.manifest.golden.size))
        return open(bundle.artifact(target.format), target).use { engine ->
            val result = GoldenReplay.run(bundle, target.format, engine, decoder) { done, of ->
                report(BenchmarkStep.Comparing(target, done, of))
            }
            Pair(engine.report, Parity.of(result))
        }
    }

    private fun measure(
        target: BenchmarkTarget,
        settings: BenchmarkSettings,
        about: Machine,
        report: (BenchmarkStep) -> Unit,
    ): LatencyRun {
        // Reading the whole file, to check it, is no part of loading it.
        val artifact = bundle.artifact(target.format)
        return Benchmark.measure(bundle, target.format, { open(artifact, target) }, settings, about, probe = probe) {
            report(BenchmarkStep.Timing(target, it))
        }
    }

    /** What went wrong in [work], in words; null where nothing did. */
    private fun problemOf(work: () -> Unit): String? = try {
        work()
        null
    } catch (error: CancellationException) {
        throw error
    } catch (error: Exception) {
        error.message ?: error.javaClass.simpleName
    } catch (error: LinkageError) {
        "the app lacks a part of the engine: ${error.message}"
    } catch (_: OutOfMemoryError) {
        "the memory is not enough"
    }
}
