package xformer.mobile.demo.benchmark

import java.io.File
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlinx.coroutines.CancellationException
import kotlinx.serialization.json.Json.Default.parseToJsonElement
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import xformer.mobile.EngineChoice
import xformer.mobile.EngineOffer
import xformer.mobile.core.Accelerator
import xformer.mobile.core.BenchmarkProbe
import xformer.mobile.core.BenchmarkSettings
import xformer.mobile.core.BundleException
import xformer.mobile.core.Format
import xformer.mobile.core.Machine

class HeadlessBenchmarkTest {
    @TempDir
    lateinit var directory: File

    private val logged = mutableListOf<String>()
    private var asked: String? = null
    private val offers = listOf(
        EngineOffer(EngineChoice.ONNX_RUNTIME, Format.ONNX, Accelerator.CPU, null),
        EngineOffer(EngineChoice.LITERT, Format.TFLITE, Accelerator.XNNPACK, "no such library"),
    )

    private fun run(vararg given: Pair<String, Any?>, off: Float = 0f, report: (BenchmarkStep) -> Unit = {}) =
        benchmark(directory, off).run(mapOf(*given), report)

    private fun benchmark(directory: File?, off: Float = 0f) = HeadlessBenchmark(
        directory,
        { name ->
            asked = name
            if (name == "broken") throw BundleException("the bundle is broken")
            check(name != "surprise") { "who would have thought it" }
            OpenedBundle(name ?: "first", classifier, offers)
        },
        { bundle, arguments, targets, report ->
            val open = { _: Any, target: BenchmarkTarget -> GoldenEngine(bundle, target.format, off) }
            BenchmarkRunner(bundle, open, decoder, { Machine("id", system = "Android") }, BenchmarkProbe.None)
                .run(targets, BenchmarkSettings(arguments.runs, 1, maxWarmUps = 0), report)
        },
        logged::add,
    )

    private fun file(name: String) = File(directory, name)

    @Test
    fun `it measures, writes the measurements and how it ended, and says so in the log`() {
        val status = run("bundle" to "classify", "engines" to "onnxruntime", "runs" to 10, "output" to "pixel.json")
        assertEquals(HeadlessStatus.State.PASSED, status.state)
        assertEquals("classify", asked)
        val run = parseToJsonElement(file("pixel.json").readText()).jsonObject
        val measured = run.getValue("measurements").jsonArray.single().jsonObject
        val samples = measured.getValue("phases").jsonObject.getValue("inference").jsonObject.getValue("samples_ns")
        assertEquals(10, samples.jsonArray.size)
        assertEquals(status.toJson(), file("pixel.status.json").readText())
        assertEquals(listOf("XFORMER_RESULT: passed: 1 of 1 passed; measurements in pixel.json"), logged)
    }

    @Test
    fun `what is asked for and not there fails, and says why`() {
        val status = run("engines" to "onnxruntime,litert", "runs" to 10)
        assertEquals(HeadlessStatus.State.FAILED, status.state)
        assertEquals(listOf(null, "no such library"), status.outcomes.map { it.error })
        assertEquals("first", status.bundle)
    }

    @Test
    fun `an artifact that computes something else fails`() {
        assertEquals(HeadlessStatus.State.FAILED, run("engines" to "onnxruntime", "runs" to 10, off = 1f).state)
    }

    @Test
    fun `arguments that can't be right are an error, with a status file`() {
        val status = run("runs" to "many")
        assertEquals(HeadlessStatus.State.ERROR, status.state)
        val written = parseToJsonElement(file("results.status.json").readText()).jsonObject
        assertContains(written.getValue("message").jsonPrimitive.content, "runs is 'many'")
        assertFalse(file("results.json").exists())
    }

    @Test
    fun `the status of arguments that can't be right is where it is looked for, and older results are gone`() {
        file("pixel.json").writeText("{}")
        file("pixel.status.json").writeText("{}")
        val status = run("output" to "pixel.json", "runs" to "many")
        assertEquals(status.toJson(), file("pixel.status.json").readText())
        assertFalse(file("pixel.json").exists())
    }

    @Test
    fun `what nobody has thought of is an error too, with a status file`() {
        val status = run("bundle" to "surprise")
        assertEquals("the benchmark failed: java.lang.IllegalStateException: who would have thought it", status.message)
        assertEquals(status.toJson(), file("results.status.json").readText())
        assertEquals(1, logged.size)
    }

    @Test
    fun `a name that leads elsewhere is refused, and nothing is written there`() {
        val status = run("output" to "../../evil.json")
        assertEquals(HeadlessStatus.State.ERROR, status.state)
        assertEquals(setOf("results.status.json"), directory.list()?.toSet())
    }

    @Test
    fun `a bundle that can't be opened is an error, and older results are gone`() {
        file("results.json").writeText("{}")
        assertEquals("the bundle is broken", run("bundle" to "broken").message)
        assertFalse(file("results.json").exists())
        assertNull(asked?.takeIf { it != "broken" })
    }

    @Test
    fun `what is cut off is an error`() {
        val status = run { throw CancellationException("left") }
        assertEquals(HeadlessStatus.State.ERROR, status.state)
        assertContains(logged.single(), "XFORMER_RESULT: error: the benchmark was cut off")
    }

    @Test
    fun `without a place for files the log still says how it ended`() {
        val status = benchmark(null).run(emptyMap()) {}
        assertEquals(HeadlessStatus.State.ERROR, status.state)
        assertContains(logged.single(), "the device's shared storage is not there")
    }
}
