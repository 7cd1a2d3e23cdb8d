package xformer.mobile.demo.benchmark

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import kotlinx.coroutines.CancellationException
import org.junit.jupiter.api.Test
import xformer.mobile.core.BenchmarkProbe
import xformer.mobile.core.BenchmarkSettings
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineException
import xformer.mobile.core.Format
import xformer.mobile.core.Machine
import xformer.mobile.core.ThermalState

class BenchmarkRunnerTest {
    private val engines = mutableListOf<GoldenEngine>()
    private val steps = mutableListOf<BenchmarkStep>()
    private val settings = BenchmarkSettings(runs = 12, phaseRuns = 1, maxWarmUps = 2)

    private val probe = object : BenchmarkProbe {
        override fun thermalState() = ThermalState.SEVERE
    }

    private val machine = Machine("id", system = "Android")

    private fun runner(open: (BenchmarkTarget) -> Engine) =
        BenchmarkRunner(classifier, { _, target -> open(target) }, decoder, { machine }, probe)

    private fun good(target: BenchmarkTarget) = GoldenEngine(classifier, target.format).also(engines::add)

    @Test
    fun `a target that computes what the reference computes passes and is measured`() {
        val report = runner(::good).run(listOf(target()), settings, steps::add)
        val outcome = report.outcomes.single()
        assertTrue(report.passed && outcome.passed)
        assertNull(outcome.error)
        assertEquals(classifier.manifest.golden.size, outcome.parity?.images)
        assertEquals("severe", outcome.measurement?.disturbances?.thermalState)
        val run = assertNotNull(report.run)
        assertEquals(12, run.measurements.single().phases.inference.samplesNs.size)
        assertEquals(mapOf("onnxruntime" to "1.0"), run.tools)
        assertEquals(listOf(1, 1), engines.map { it.closed })
    }

    @Test
    fun `a target that computes something else fails, and is measured all the same`() {
        val report = runner { GoldenEngine(classifier, off = 1f) }.run(listOf(target()), settings, steps::add)
        val outcome = report.outcomes.single()
        assertFalse(report.passed)
        assertEquals(false, outcome.parity?.passed)
        assertTrue(outcome.parity?.misses.orEmpty().isNotEmpty())
        assertNotNull(outcome.measurement)
    }

    @Test
    fun `an engine that refuses does not keep the others from being measured`() {
        val targets = listOf(target(), target(Format.ORT))
        val report =
            runner { if (it.format == Format.ONNX) throw EngineException("no such engine") else good(it) }
                .run(targets, settings, steps::add)
        assertFalse(report.passed)
        assertEquals("no such engine", report.outcomes[0].error)
        assertNull(report.outcomes[0].measurement)
        assertTrue(report.outcomes[1].passed)
        assertEquals(listOf("ort"), report.run?.measurements?.map { it.artifact.format })
    }

    @Test
    fun `a target that is known not to be there is not tried`() {
        val report = runner { error("tried") }.run(listOf(target().copy(problem = "no driver")), settings, steps::add)
        assertEquals("no driver", report.outcomes.single().error)
        assertFalse(report.passed)
        assertEquals(emptyList(), steps)
    }

    @Test
    fun `measurements of several targets are one document`() {
        val report = runner(::good).run(listOf(target(), target(Format.ORT)), settings, steps::add)
        assertEquals(listOf("onnx", "ort"), report.run?.measurements?.map { it.artifact.format })
    }

    @Test
    fun `where nothing is measured there is no document`() {
        val report = runner { throw EngineException("no") }.run(listOf(target()), settings, steps::add)
        assertNull(report.run)
        assertFalse(BenchmarkReport(emptyList(), null).passed)
    }

    @Test
    fun `a lack of memory is told, not thrown`() {
        val report = runner { throw OutOfMemoryError() }.run(listOf(target()), settings, steps::add)
        assertEquals("the memory is not enough", report.outcomes.single().error)
    }

    @Test
    fun `cancelling ends it, and closes the engine`() {
        for (end in listOf(1, 4, 12, 25)) {
            engines.clear()
            var told = 0
            assertFailsWith<CancellationException> {
                runner(::good).run(listOf(target(), target(Format.ORT)), settings) {
                    if (++told == end) throw CancellationException("enough")
                }
            }
            assertTrue(engines.all { it.closed == 1 }, "after $end steps")
        }
    }

    @Test
    fun `progress goes from nothing to nearly all and never back`() {
        val targets = listOf(target(), target(Format.ORT))
        runner(::good).run(targets, settings, steps::add)
        val bar = BenchmarkProgressBar(targets)
        val shares = steps.map(bar::at)
        assertEquals(0.0, shares.first())
        assertEquals(shares.sorted(), shares)
        assertTrue(shares.last() in 0.95..1.0, "${shares.last()}")
        assertTrue(shares.distinct().size > 20)
    }

    @Test
    fun `a step that is not known leaves the progress where it is`() {
        val bar = BenchmarkProgressBar(listOf(target()))
        val before = bar.at(BenchmarkStep.Comparing(target(), 1, 2))
        val step = xformer.mobile.core.BenchmarkProgress("cooling", 1, 2)
        assertEquals(before, bar.at(BenchmarkStep.Timing(target(), step)))
    }
}
