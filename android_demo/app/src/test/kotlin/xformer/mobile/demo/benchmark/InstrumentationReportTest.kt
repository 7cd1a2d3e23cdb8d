package xformer.mobile.demo.benchmark

import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import org.junit.jupiter.api.Test
import xformer.mobile.core.Agreement
import xformer.mobile.core.Format
import xformer.mobile.core.Tolerance

class InstrumentationReportTest {
    private val parity = Parity(3, emptyList(), Agreement("top-1", 1.0, emptyMap()), Tolerance(), emptyList())
    private val passed = BenchmarkOutcome(target(), null, parity, null, null)
    private val other = parity.copy(misses = listOf("logits differs"))
    private val failed = BenchmarkOutcome(target(Format.ORT), null, other, null, null)

    private fun report(vararg outcomes: BenchmarkOutcome, ignored: Set<String> = emptySet()) = InstrumentationReport(
        "Benchmark",
        HeadlessStatus.of("classify", BenchmarkReport(outcomes.toList(), null), "results.json"),
        ignored,
    )

    @Test
    fun `each target is a test that begins and ends`() {
        val statuses = report(passed, failed).statuses
        assertEquals(listOf(1, 0, 1, -2), statuses.map { it.first })
        assertEquals(
            listOf<Any?>("onnx_on_onnxruntime_cpu", "ort_on_onnxruntime_cpu").flatMap { listOf(it, it) },
            statuses.map { it.second["test"] },
        )
        assertEquals(listOf(1, 1, 2, 2), statuses.map { it.second["current"] })
        assertEquals(setOf<Any?>(2), statuses.map { it.second["numtests"] }.toSet())
        assertEquals(setOf<Any?>("Benchmark"), statuses.map { it.second["class"] }.toSet())
        assertEquals("logits differs", statuses.last().second["stack"])
    }

    @Test
    fun `the result counts, and says where the measurements are`() {
        val result = report(passed, failed).result
        assertContains(result.getValue("stream").toString(), "Tests run: 2,  Failures: 1")
        assertEquals("failed", result["status"])
        assertEquals("results.json", result["output"])
        assertContains(report(passed).result.getValue("stream").toString(), "OK (1 test)")
    }

    @Test
    fun `a benchmark that came to nothing is one test that failed`() {
        val report = InstrumentationReport("Benchmark", HeadlessStatus.error("no bundle"), emptySet())
        assertEquals(listOf(1, -2), report.statuses.map { it.first })
        assertEquals("no bundle", report.statuses.last().second["stack"])
        assertEquals("error", report.result["status"])
    }

    @Test
    fun `arguments that mean nothing are told`() {
        val told = report(passed, ignored = setOf("numShards")).result.getValue("stream").toString()
        assertContains(told, "ignored arguments: numShards")
        assertFalse("ignored" in report(passed).result.getValue("stream").toString())
    }
}
