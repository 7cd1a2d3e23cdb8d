package xformer.mobile.demo.benchmark

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlinx.serialization.json.Json.Default.parseToJsonElement
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Test
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Agreement
import xformer.mobile.core.EngineReport
import xformer.mobile.core.Format
import xformer.mobile.core.OutputComparison
import xformer.mobile.core.Tolerance

class HeadlessStatusTest {
    private val engine = EngineReport("litert", "1.4", Format.TFLITE, null, Accelerator.GPU, null)
    private val output = OutputComparison("logits", 1.0, 1.0, 0.5, Double.NEGATIVE_INFINITY, 0.0, 0.0)
    private val parity =
        Parity(3, listOf(output), Agreement("top-1", 0.5, emptyMap()), Tolerance(1e-4), listOf("logits \"differs\"\n"))
    private val failed = BenchmarkOutcome(target(Format.TFLITE), engine, parity, null, "no\tGPU")
    private val passed = failed.copy(parity = parity.copy(misses = emptyList()), error = null)

    @Test
    fun `a benchmark passes where every target does`() {
        val good = HeadlessStatus.of("classify", BenchmarkReport(listOf(passed), null), "results.json")
        assertEquals("XFORMER_RESULT: passed: 1 of 1 passed; measurements in results.json", good.toLogLine())
        val bad = HeadlessStatus.of("classify", BenchmarkReport(listOf(passed, failed), null), null)
        assertEquals("XFORMER_RESULT: failed: 1 of 2 passed", bad.toLogLine())
    }

    @Test
    fun `an error is one line, whatever it says`() {
        assertEquals("XFORMER_RESULT: error: two lines", HeadlessStatus.error("two\n lines").toLogLine())
    }

    @Test
    fun `the status file is JSON, and what is not finite is null`() {
        val status = HeadlessStatus.of("classify", BenchmarkReport(listOf(failed), null), "results.json")
        val document = parseToJsonElement(status.toJson()).jsonObject
        assertEquals("failed", document.getValue("status").jsonPrimitive.content)
        assertEquals("results.json", document.getValue("results").jsonPrimitive.content)
        val target = document.getValue("targets").jsonArray.single().jsonObject
        assertEquals("no\tGPU", target.getValue("error").jsonPrimitive.content)
        assertEquals("null", target.getValue("used").toString())
        val compared = target.getValue("parity").jsonObject
        assertEquals("logits \"differs\"\n", compared.getValue("misses").jsonArray.single().jsonPrimitive.content)
        val logits = compared.getValue("outputs").jsonObject.getValue("logits").jsonObject
        assertEquals("null", logits.getValue("snr_db").toString())
        assertEquals("0.5", logits.getValue("relative_max").toString())
    }

    @Test
    fun `JSON has lists, words, numbers and nothing else`() {
        val value = mapOf("a" to listOf(1, 2.5, true, null, "\u0001\\"))
        assertEquals("""{"a": [1, 2.5, true, null, "\u0001\\"]}""", Json.write(value))
        assertEquals("[null, null]", Json.write(listOf(Double.NaN, Double.POSITIVE_INFINITY)))
        assertFailsWith<IllegalArgumentException> { Json.write(listOf('a')) }
    }
}
