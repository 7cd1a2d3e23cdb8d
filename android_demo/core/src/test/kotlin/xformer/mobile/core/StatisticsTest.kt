package xformer.mobile.core

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

/** Against numbers that Statistics and noise_of of xformer_mobile/bench/latency_run.py give for the same samples. */
class StatisticsTest {
    private val drawn = Drawn(5).let { drawn -> LongArray(101) { 4_000_000L + drawn.next() % 1_000_000 } }

    @TestFactory
    fun statistics(): List<DynamicTest> = listOf(
        Statistics(101, 4_001_264, 4_533_676.0, 4_941_067.0, 4_993_073.0, 0.08985886949133551),
        Statistics(1, 4_993_073, 4_993_073.0, 4_993_073.0, 4_993_073.0, 0.0),
        Statistics(2, 4_282_360, 4_637_716.5, 4_922_001.7, 4_985_965.87, 0.061298529136052236),
        Statistics(10, 4_019_342, 4_340_222.0, 4_874_723.0, 4_981_238.0, 0.12315061303315822),
    ).map { expected ->
        dynamicTest("of ${expected.count}") {
            val found = Statistics.of(drawn.copyOf(expected.count))
            assertEquals(expected.count, found.count)
            assertEquals(expected.minNs, found.minNs)
            assertEquals(expected.p50Ns, found.p50Ns, 1e-6)
            assertEquals(expected.p90Ns, found.p90Ns, 1e-6)
            assertEquals(expected.p99Ns, found.p99Ns, 1e-6)
            assertEquals(expected.spread, found.spread, 1e-12)
        }
    }

    @Test
    fun `samples stay in their order`() {
        val samples = longArrayOf(3, 1, 2)
        Statistics.of(samples)
        assertEquals(listOf(3L, 1L, 2L), samples.toList())
    }

    @Test
    fun `zeros have no spread`() {
        assertEquals(Statistics(2, 0, 0.0, 0.0, 0.0, 0.0), Statistics.of(longArrayOf(0, 0)))
    }

    @Test
    fun `no samples are refused`() {
        assertFailsWith<BenchmarkException> { Statistics.of(LongArray(0)) }
    }

    // ---- noise ----------------------------------------------------------------------------------------------

    private class Noise(
        val samples: List<Long>,
        val processes: List<Int>?,
        val disturbances: Measurement.Disturbances?,
        vararg val expected: String,
    )

    private val calm = Drawn(5).let { drawn -> List(100) { 4_000_000L + drawn.next() % 100_000 } }
    private val half = calm.mapIndexed { i, sample -> if (i < 50) sample else sample + 400_000 }
    private val few = calm.mapIndexed { i, sample -> if (i < 90) sample else sample + 400_000 }

    private fun disturbed(vararg expected: String, of: Measurement.Disturbances) = Noise(calm, null, of, *expected)

    private val halfWidth = "the median of 100 samples is known to 3.9% only, 3% is asked for"

    private val noise = mapOf(
        "calm" to Noise(calm, listOf(100), null),
        "wide" to Noise(drawn.toList(), null, null),
        "too few to tell" to
            Noise(calm.take(3), null, null, "the median of 3 samples is not known at all, 3% is asked for"),
        "zeros" to Noise(List(20) { 0L }, null, null, "the median of 20 samples is not known at all, 3% is asked for"),
        "two halves" to Noise(half, listOf(50, 50), null, halfWidth),
        "another process" to
            Noise(few, listOf(90, 10), null, "a process differs from the others by 9.8%, 5% is allowed"),
        "processes that do not add up" to Noise(few, listOf(90, 9), null),
        "processes without samples" to
            Noise(few, listOf(0, 90, 10, 0), null, "a process differs from the others by 9.8%, 5% is allowed"),
        "preempted as often as allowed" to disturbed(of = Measurement.Disturbances(preempted = 25)),
        "preempted" to disturbed(
            "the system took the processor away 0.3 times a run, 0.25 are allowed",
            of = Measurement.Disturbances(preempted = 26),
        ),
        "unstable" to disturbed(
            "the times were still changing when the warm-up was given up",
            of = Measurement.Disturbances(unstableWarmUps = 1),
        ),
        "stable" to disturbed(of = Measurement.Disturbances(unstableWarmUps = 0)),
        "hot" to disturbed("the thermal state was moderate", of = Measurement.Disturbances(thermalState = "moderate")),
        "warm" to disturbed(of = Measurement.Disturbances(thermalState = "light")),
        "nominal" to disturbed(of = Measurement.Disturbances(thermalState = "nominal")),
        "all at once" to Noise(
            calm.take(3),
            null,
            Measurement.Disturbances(preempted = 3, unstableWarmUps = 1, thermalState = "severe"),
            "the median of 3 samples is not known at all, 3% is asked for",
            "the system took the processor away 1.0 times a run, 0.25 are allowed",
            "the times were still changing when the warm-up was given up",
            "the thermal state was severe",
        ),
    )

    @TestFactory
    fun `why times can't be relied on`(): List<DynamicTest> = noise.map { (name, case) ->
        dynamicTest(name) {
            val phase = Measurement.Phase(case.samples, processes = case.processes)
            val none = Measurement.Phase(emptyList())
            val measurement = Measurement(
                Measurement.Model("classify", "xformer_xxs", "fp32", listOf(64, 64)),
                Measurement.Artifact("onnx", "0".repeat(64), 1),
                Measurement.Engine("onnxruntime", null),
                Measurement.Phases(none, none, none, phase, none),
                disturbances = case.disturbances,
            )
            assertEquals(case.expected.toList(), noiseOf(measurement))
        }
    }
}
