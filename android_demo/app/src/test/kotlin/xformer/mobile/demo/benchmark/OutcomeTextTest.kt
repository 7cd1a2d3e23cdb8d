package xformer.mobile.demo.benchmark

import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import org.junit.jupiter.api.Test
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Agreement
import xformer.mobile.core.EngineReport
import xformer.mobile.core.Format
import xformer.mobile.core.Measurement
import xformer.mobile.core.OutputComparison
import xformer.mobile.core.Tolerance
import xformer.mobile.demo.model.EngineText
import xformer.mobile.demo.ui.XmlWords

class OutcomeTextTest {
    private val text = OutcomeText(XmlWords)
    private val engine = EngineReport("onnxruntime", "1.23.2", Format.ONNX, 4, Accelerator.CPU, Accelerator.CPU)
    private val close = OutputComparison("logits", 1e-5, 1e-6, 4.2e-7, 120.5, 110.0, 1.0)
    private val agreement = Agreement("top-1 agreement", 1.0, emptyMap())
    private val parity =
        Parity(4, listOf(close), agreement, Tolerance(1e-4, agreement = 0.995), emptyList())
    private val outcome = BenchmarkOutcome(target(), engine, parity, measurement(), null)

    @Test
    fun `what passes says so, with its figures and what is allowed`() {
        assertEquals("onnx on ONNX Runtime, CPU", text.title(outcome.target))
        assertEquals("Parity: PASS", text.verdict(outcome))
        assertEquals(
            """
            ONNX Runtime 1.23.2, onnx, CPU, 4 threads
            4 golden pictures
            logits: largest difference 4.2e-07 of the range, SNR 120.5 dB
            top-1 agreement: 100.00 %
            Allowed: difference up to 1.0e-04, agreement of 99.50 % and more
            """.trimIndent(),
            text.details(outcome),
        )
    }

    @Test
    fun `what fails says so and why`() {
        val failed = outcome.copy(parity = parity.copy(misses = listOf("logits differs")))
        assertEquals("Parity: FAIL", text.verdict(failed))
        assertContains(text.details(failed), "logits differs")
    }

    @Test
    fun `what was not compared says that, and why it was not measured`() {
        val refused = BenchmarkOutcome(target(), null, null, null, "no such engine")
        assertEquals("Parity: not known", text.verdict(refused))
        assertEquals("Not measured: no such engine", text.details(refused))
        assertEquals(emptyList(), text.table(refused))
        assertEquals("", text.notes(refused))
    }

    @Test
    fun `equal outputs and an SNR that is asked for are in words`() {
        val equal = close.copy(snrDb = Double.POSITIVE_INFINITY, relativeMax = 0.0)
        val compared = parity.copy(outputs = listOf(equal), tolerance = Tolerance(snrDb = 40.0))
        val details = text.details(outcome.copy(parity = compared))
        assertContains(details, "logits: largest difference 0.0e+00 of the range, SNR infinite (equal)")
        assertContains(details, "Allowed: SNR of 40 dB and more")
        assertFalse("agreement of" in details)
    }

    @Test
    fun `the table has a line for each phase, with headings`() {
        val table = text.table(outcome)
        assertEquals(listOf("phase", "samples", "min", "median", "p90", "p99", "spread"), table.first())
        assertEquals(listOf("load", "first run", "preprocess", "inference", "postprocess"), table.drop(1).map { it[0] })
        val phases = phases().copy(inference = Measurement.Phase(listOf(10_000_000, 30_000_000, 20_000_000)))
        val line = text.table(outcome.copy(measurement = measurement().copy(phases = phases)))[4]
        assertEquals(listOf("inference", "3", "10.0 ms", "20.0 ms", "28.0 ms", "29.8 ms", "40 %"), line)
    }

    @Test
    fun `what disturbed is told, and the heat`() {
        val noisy = Measurement.Disturbances(tooNoisy = listOf("a", "b"), thermalState = "severe")
        assertEquals(
            "Too noisy to tell: a\nToo noisy to tell: b\nThermal state: severe",
            text.notes(outcome.copy(measurement = measurement().copy(disturbances = noisy))),
        )
        val calm = Measurement.Disturbances(tooNoisy = emptyList())
        assertEquals(
            "The times are steady enough.\nThermal state: this device does not say",
            text.notes(outcome.copy(measurement = measurement().copy(disturbances = calm))),
        )
    }

    @Test
    fun `the engine's line tells what is really used`() {
        val notes = listOf("the GPU refused")
        assertEquals(
            "LiteRT 1.4, tflite, XNNPACK instead of GPU\nthe GPU refused",
            EngineText.of(
                EngineReport("litert", "1.4", Format.TFLITE, null, Accelerator.GPU, Accelerator.XNNPACK, notes),
                XmlWords,
            ),
        )
        assertEquals(
            "LiteRT 1.4, tflite, NNAPI asked for, use not known, 1 thread",
            EngineText.of(EngineReport("litert", "1.4", Format.TFLITE, 1, Accelerator.NNAPI, null), XmlWords),
        )
    }

    private fun phases(): Measurement.Phases {
        val phase = Measurement.Phase(listOf(1_000_000L, 2_000_000L))
        return Measurement.Phases(phase, phase, phase, phase, phase)
    }

    private fun measurement(): Measurement = Measurement(
        Measurement.Model("classify", "xformer_s", "fp32", listOf(256, 256)),
        Measurement.Artifact("onnx", "0".repeat(64), 1),
        Measurement.Engine("onnxruntime", 4),
        phases(),
        disturbances = Measurement.Disturbances(tooNoisy = emptyList()),
    )
}
