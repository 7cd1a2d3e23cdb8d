package xformer.mobile.core

import com.networknt.schema.InputFormat
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonObject
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.io.TempDir
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.EnumSource
import java.io.File
import java.time.Instant
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class BenchmarkTest {
    @TempDir
    lateinit var temporary: File

    private val schema = schema("latency_run")
    private val machine = Machine(id = "0123456789abcdef", system = "Android", release = "14", model = "Pixel 8")

    /** A clock that goes on by [stepNs] each time that it is read, so that all takes as long. */
    private class StepClock(private val stepNs: (Int) -> Long) : Clock {
        private var reads = 0
        private var time = 0L

        override fun nanos(): Long {
            time += stepNs(reads++)
            return time
        }

        override fun now(): Instant = Instant.parse("2025-01-31T12:30:45.678Z")
    }

    private val steady get() = StepClock { 1_000_000 }

    private fun bundle(task: Task = Task.CLASSIFY) = Bundle.open(writeBundle(File(temporary, task.id), task))

    private fun engine(bundle: Bundle) = FakeEngine {
        bundle.outputShapes.mapValues { (_, shape) -> Tensor(shape, FloatArray(shape.reduce(Int::times))) }
    }

    private fun measure(
        bundle: Bundle = bundle(),
        engine: Engine = engine(bundle),
        settings: BenchmarkSettings = BenchmarkSettings(runs = 30),
        probe: BenchmarkProbe = BenchmarkProbe.None,
        clock: Clock = steady,
        report: (BenchmarkProgress) -> Unit = {},
    ): LatencyRun = Benchmark.measure(
        bundle,
        Format.ONNX,
        { engine },
        settings,
        machine,
        mapOf("onnxruntime" to "1.23.2"),
        probe,
        clock,
        report,
    )

    @ParameterizedTest
    @EnumSource
    fun `the document follows the schema`(task: Task) {
        val bundle = bundle(task)
        val run = measure(bundle)
        assertEquals(emptySet(), schema.validate(run.toJson(), InputFormat.JSON))
        val measured = run.measurements.single()
        assertEquals(Measurement.Model(task.id, "xformer_xxs", bundle.precision, listOf(64, 64)), measured.model)
        assertEquals(bundle.artifact(Format.ONNX).sha256, measured.artifact.sha256)
        assertEquals(Measurement.Engine("fake", 2, "cpu"), measured.engine)
        assertEquals("2025-01-31T12:30:45Z", run.created)
        assertEquals(machine, run.machine)
    }

    @Test
    fun `the version is that of the build`() {
        val pom = File(System.getProperty("xformer.golden"), "../../android_demo/pom.xml").normalize().readText()
        assertEquals(VERSION, pom.substringAfter("<version>").substringBefore("</version>"))
    }

    @Test
    fun `every phase is measured apart, and warm-ups do not count`() {
        val phases = measure().measurements.single().phases
        val counts = phases.byName().mapValues { it.value.samplesNs.size }
        val expected = mapOf("load" to 1, "first_run" to 1, "preprocess" to 10, "inference" to 30, "postprocess" to 10)
        assertEquals(expected, counts)
        assertEquals(List(10) { 1_000_000L }, phases.inference.warmUpsNs)
        assertEquals(listOf(30), phases.inference.processes)
        assertTrue(phases.byName().values.all { phase -> phase.samplesNs.all { it == 1_000_000L } })
    }

    @Test
    fun `what is not known is left out, and what must be there is null`() {
        val engine = object : Engine by engine(bundle()) {
            override val report =
                EngineReport("litert", "1.4.0", Format.TFLITE, threads = null, Accelerator.NNAPI, used = null)
        }
        val text = measure(engine = engine).toJson()
        assertEquals(emptySet(), schema.validate(text, InputFormat.JSON))
        val document = Json.parseToJsonElement(text)
        assertEquals(JsonNull, document.at("measurements/0/engine/threads"))
        assertEquals(JsonPrimitive("nnapi (requested)"), document.at("measurements/0/engine/accelerator"))
        assertTrue("boot" !in document.at("machine").jsonObject)
        assertEquals(JsonObject(emptyMap()), document.at("measurements/0/memory"))
        assertTrue("thermal_state" !in document.at("measurements/0/disturbances").jsonObject)
    }

    @Test
    fun `what the phone says is in the document`() {
        val probe = object : BenchmarkProbe {
            private val states = ArrayDeque(listOf(ThermalState.LIGHT, ThermalState.SEVERE))
            private var preempted = 0L

            override fun thermalState() = states.removeFirstOrNull() ?: ThermalState.MODERATE

            override fun residentBytes() = 5_000L

            override fun peakResidentBytes() = 6_000L

            override fun preemptions(): Long {
                preempted += 7
                return preempted
            }
        }
        val run = measure(probe = probe)
        assertEquals(emptySet(), schema.validate(run.toJson(), InputFormat.JSON))
        val measured = run.measurements.single()
        assertEquals(Measurement.Memory(5_000, 5_000, 6_000), measured.memory)
        val expected = Measurement.Disturbances(7, 0, "severe", listOf("the thermal state was severe"))
        assertEquals(expected, measured.disturbances)
    }

    @Test
    fun `a phone that gets slower and slower is noisy`() {
        val run = measure(clock = StepClock { it * 100_000L })
        val measured = run.measurements.single()
        assertEquals(100, measured.phases.inference.warmUpsNs?.size)
        assertEquals(1, measured.disturbances?.unstableWarmUps)
        assertContains(
            measured.disturbances?.tooNoisy.orEmpty(),
            "the times were still changing when the warm-up was given up",
        )
    }

    @Test
    fun `the warm-up ends when its time is over`() {
        val settings = BenchmarkSettings(runs = 30, maxWarmUpNs = 3_500_000)
        val warmUps = measure(settings = settings).measurements.single().phases.inference.warmUpsNs
        assertEquals(4, warmUps?.size)
    }

    private val stable = mapOf(
        "too few" to (List(9) { 100L } to false),
        "the same" to (List(10) { 100L } to true),
        "within 2 %, slower" to (List(5) { 1000L } + List(5) { 1019L } to true),
        "within 2 %, faster" to (List(5) { 1000L } + List(5) { 981L } to true),
        "more than 2 % slower" to (List(5) { 1000L } + List(5) { 1021L } to false),
        "more than 2 % faster" to (List(5) { 1000L } + List(5) { 979L } to false),
        "slow at first" to (List(20) { 900L } + List(10) { 100L } to true),
        "one outlier" to (List(9) { 100L } + 900L to true),
        "zeros" to (List(10) { 0L } to false),
    )

    @TestFactory
    fun `whether a warm-up is stable`(): List<DynamicTest> = stable.map { (name, case) ->
        dynamicTest(name) { assertEquals(case.second, Benchmark.isStable(case.first)) }
    }

    @Test
    fun `progress is told in order`() {
        val told = mutableListOf<BenchmarkProgress>()
        measure(report = told::add)
        val phases = told.map { it.phase }.distinct()
        assertEquals(listOf("load", "warm_up", "inference", "preprocess", "postprocess"), phases)
        assertEquals((0 until 30).toList(), told.filter { it.phase == "inference" }.map { it.done })
        assertTrue(told.all { it.done < it.of })
    }

    @TestFactory
    fun `what the report throws ends the benchmark and closes the engine`(): List<DynamicTest> =
        listOf("warm_up", "inference", "preprocess", "postprocess").map { phase ->
            dynamicTest(phase) {
                val engine = engine(bundle())
                assertFailsWith<InterruptedException> {
                    measure(engine = engine) { if (it.phase == phase) throw InterruptedException() }
                }
                assertEquals(1, engine.closed.get())
            }
        }

    @Test
    fun `the engine is closed at the end, and when it fails`() {
        val engine = engine(bundle())
        measure(engine = engine)
        assertEquals(1, engine.closed.get())
        var runs = 0
        val failing = FakeEngine { if (++runs == 5) error("out of memory") else meanColor(it) }
        assertContains(refusal<EngineException> { measure(engine = failing) }, "out of memory")
        assertEquals(1, failing.closed.get())
    }

    @Test
    fun `an engine that can't be opened`() {
        val message = refusal<EngineException> {
            Benchmark.measure(bundle(), Format.ORT, { throw EngineException("no NNAPI here") }, machine = machine)
        }
        assertEquals("no NNAPI here", message)
        assertFailsWith<UsageException> {
            Benchmark.measure(bundle(), Format.TFLITE, { error("is not asked") }, machine = machine)
        }
    }

    @TestFactory
    fun `numbers that can't be are refused`(): List<DynamicTest> = listOf(
        { BenchmarkSettings(runs = 0) },
        { BenchmarkSettings(runs = 1_000_001) },
        { BenchmarkSettings(phaseRuns = 0) },
        { BenchmarkSettings(maxWarmUps = -1) },
        { BenchmarkSettings(maxWarmUpNs = -1) },
        { machine.copy(id = "") },
        { machine.copy(system = "x".repeat(501)) },
        { machine.copy(cpus = 0) },
        { machine.copy(memoryBytes = -1) },
        { machine.copy(loadAverage = Double.NaN) },
        { machine.copy(loadAverage = -1.0) },
    ).mapIndexed { index, make ->
        dynamicTest("case $index") { assertFailsWith<XFormerException> { make() } }
    }

    @Test
    fun `statistics of each phase`() {
        val found = measure().measurements.single().statistics()
        assertEquals(listOf("load", "first_run", "preprocess", "inference", "postprocess"), found.keys.toList())
        assertEquals(Statistics(30, 1_000_000, 1e6, 1e6, 1e6, 0.0), found.getValue("inference"))
    }
}
