package xformer.mobile.core

import java.time.Instant
import java.time.temporal.ChronoUnit
import kotlin.math.abs

/** Where a benchmark's times come from. */
public interface Clock {
    /** Of a clock that only goes forward. */
    public fun nanos(): Long

    /** The time of day. */
    public fun now(): Instant

    /** The system's. */
    public object System : Clock {
        override fun nanos(): Long = java.lang.System.nanoTime()

        override fun now(): Instant = Instant.now()
    }
}

/** How hot a phone is; the values of Android's PowerManager, in their order. */
public enum class ThermalState(
    /** Its name in a [LatencyRun]. */
    public val id: String,
) {
    NONE("none"),
    LIGHT("light"),
    MODERATE("moderate"),
    SEVERE("severe"),
    CRITICAL("critical"),
    EMERGENCY("emergency"),
    SHUTDOWN("shutdown"),
}

/** What a phone says of itself during a benchmark; null where it does not say. */
public interface BenchmarkProbe {
    /** How hot it is now. */
    public fun thermalState(): ThermalState? = null

    /** Memory of this process that is in RAM now. */
    public fun residentBytes(): Long? = null

    /** The most memory of this process that was in RAM. */
    public fun peakResidentBytes(): Long? = null

    /** How often the system has taken the processor away from this process. */
    public fun preemptions(): Long? = null

    /** Says nothing. */
    public object None : BenchmarkProbe
}

/**
 * How much is measured: [runs] of the model, [phaseRuns] of pre- and postprocessing, after a warm-up of at most
 * [maxWarmUps] runs or [maxWarmUpNs] nanoseconds.
 *
 * @throws UsageException a number is out of range.
 */
public data class BenchmarkSettings(
    val runs: Int = 300,
    val phaseRuns: Int = 10,
    val maxWarmUps: Int = 100,
    val maxWarmUpNs: Long = 10_000_000_000,
) {
    init {
        if (runs !in RUNS || phaseRuns !in RUNS || maxWarmUps !in 0..RUNS.last || maxWarmUpNs < 0) {
            throw UsageException("$this is not valid; runs are from 1 to ${RUNS.last}, warm-ups from 0 on")
        }
    }

    private companion object {
        val RUNS = 1..1_000_000
    }
}

/** [done] of [of] runs of the phase "load", "warm_up", "inference", "preprocess" or "postprocess". */
public data class BenchmarkProgress(val phase: String, val done: Int, val of: Int)

/** Measures how long a model takes on this phone, each phase apart. */
public object Benchmark {
    /** Warm-up compares the median of so many runs with that of those before them. */
    private const val WINDOW = 5
    private const val STABLE_WITHIN = 0.02

    /** So many runs before the thermal state is asked for: that takes time too. */
    private const val RUNS_A_PROBE = 10

    /** The picture that preprocessing is timed on, about that of a phone's preview. */
    private val SOURCE_SIZE = Size(640, 448)

    /**
     * Opens the engine, warms it up and times it; closes it in any case.
     *
     * [open] opens an engine for the bundle's artifact of [format]. [report] is called before each run: what it throws
     * ends the benchmark and is passed on, so that a caller can cancel. Blocks the caller's thread, which should be the
     * only one that works.
     *
     * @throws UsageException the bundle has no such format.
     * @throws BundleException the artifact can't be used.
     * @throws EngineException the engine failed.
     */
    public fun measure(
        bundle: Bundle,
        format: Format,
        open: () -> Engine,
        settings: BenchmarkSettings = BenchmarkSettings(),
        machine: Machine,
        tools: Map<String, String> = emptyMap(),
        probe: BenchmarkProbe = BenchmarkProbe.None,
        clock: Clock = Clock.System,
        report: (BenchmarkProgress) -> Unit = {},
    ): LatencyRun {
        val created = clock.now().truncatedTo(ChronoUnit.SECONDS).toString()
        val artifact = bundle.artifact(format)
        report(BenchmarkProgress("load", 0, 1))
        val rssStart = probe.residentBytes()
        val since = clock.nanos()
        val opened = open()
        val loadNs = clock.nanos() - since
        val measured = opened.checkedBy(bundle).use { engine ->
            Session(bundle, engine, settings, probe, clock, report).measure(artifact, loadNs, rssStart)
        }
        return LatencyRun(
            LatencyRun.SCHEMA_VERSION,
            LatencyRun.Generator("xformer-mobile-android", VERSION),
            created,
            machine,
            tools,
            listOf(measured),
        )
    }

    /** Runs that do not count; not [isStable] where they were still changing when they were given up. */
    private class WarmUp(val samplesNs: List<Long>, val isStable: Boolean)

    private class Session(
        private val bundle: Bundle,
        private val engine: Engine,
        private val settings: BenchmarkSettings,
        private val probe: BenchmarkProbe,
        private val clock: Clock,
        private val report: (BenchmarkProgress) -> Unit,
    ) {
        private val image = drawnPicture(Size(bundle.imageSize.width, bundle.imageSize.height))
        private var thermalState: ThermalState? = null

        fun measure(artifact: Artifact, loadNs: Long, rssStart: Long?): Measurement {
            noteThermalState()
            val rssLoaded = probe.residentBytes()
            val firstRunNs = time { engine.run(image) }
            val warmUp = warmUp("warm_up") { engine.run(image) }
            val preemptedBefore = probe.preemptions()
            val inference = samples("inference", settings.runs) { engine.run(image) }
            val preempted = probe.preemptions()?.let { after -> preemptedBefore?.let { after - it } }
            val rssPeak = probe.peakResidentBytes()
            val source = drawnPicture(SOURCE_SIZE)
            val fitted = Preprocess.preprocess(source, bundle.imageSize, bundle.resizeRule)
            val preprocess = phase("preprocess") {
                Preprocess.preprocess(source, bundle.imageSize, bundle.resizeRule)
            }
            val outputs = engine.run(image)
            val rule = bundle.postprocess()
            val postprocess = phase("postprocess") { rule(outputs, fitted.fit) }
            noteThermalState()
            val measurement = Measurement(
                Measurement.Model(
                    bundle.task.id,
                    bundle.manifest.model.variant,
                    bundle.precision,
                    listOf(bundle.imageSize.height, bundle.imageSize.width),
                ),
                Measurement.Artifact(artifact.format.id, artifact.sha256, artifact.sizeBytes),
                Measurement.Engine(engine.report.engine, engine.report.threads, accelerator(engine.report)),
                Measurement.Phases(
                    load = Measurement.Phase(listOf(loadNs)),
                    firstRun = Measurement.Phase(listOf(firstRunNs)),
                    preprocess = preprocess,
                    inference = Measurement.Phase(inference, warmUp.samplesNs, listOf(inference.size)),
                    postprocess = postprocess,
                ),
                Measurement.Memory(rssStart, rssLoaded, rssPeak),
                Measurement.Disturbances(preempted, if (warmUp.isStable) 0 else 1, thermalState?.id),
            )
            val disturbances = measurement.disturbances?.copy(tooNoisy = noiseOf(measurement))
            return measurement.copy(disturbances = disturbances)
        }

        private fun phase(name: String, work: () -> Unit): Measurement.Phase {
            val warmUp = warmUp(name, work)
            return Measurement.Phase(samples(name, settings.phaseRuns, work), warmUp.samplesNs)
        }

        /** Runs until the time of a run no longer changes, or as long as the settings allow. */
        private fun warmUp(name: String, work: () -> Unit): WarmUp {
            val samples = mutableListOf<Long>()
            while (!isStable(samples) && samples.size < settings.maxWarmUps && samples.sum() < settings.maxWarmUpNs) {
                report(BenchmarkProgress(name, samples.size, settings.maxWarmUps))
                samples += time(work)
            }
            return WarmUp(samples, isStable(samples))
        }

        private fun samples(name: String, count: Int, work: () -> Unit): List<Long> = List(count) { done ->
            report(BenchmarkProgress(name, done, count))
            if (done % RUNS_A_PROBE == 0) noteThermalState()
            time(work)
        }

        private inline fun time(work: () -> Unit): Long {
            val since = clock.nanos()
            work()
            return clock.nanos() - since
        }

        private fun noteThermalState() {
            val state = probe.thermalState() ?: return
            thermalState = maxOf(state, thermalState ?: state)
        }
    }

    /** Whether the last runs took as long as those before them, by their medians. */
    internal fun isStable(samplesNs: List<Long>): Boolean {
        if (samplesNs.size < 2 * WINDOW) return false
        val last = samplesNs.takeLast(WINDOW)
        val before = samplesNs.takeLast(2 * WINDOW).take(WINDOW)
        return abs(median(last.toLongArray()) / median(before.toLongArray()) - 1) <= STABLE_WITHIN
    }

    private fun accelerator(report: EngineReport): String = report.used?.id ?: "${report.requested.id} (requested)"

    /** Waves and noise: how long a run takes does not depend on what a picture shows, but flat areas could flatter. */
    private fun drawnPicture(size: Size): RgbImage {
        val bytes = ByteArray(3 * size.width * size.height)
        var state = 1
        for (i in bytes.indices) {
            state = state * 1_664_525 + 1_013_904_223
            val pixel = i / 3
            val wave = pixel % size.width * 5 + pixel / size.width * 3 + 40 * (i % 3)
            bytes[i] = (wave + (state ushr 27)).toByte()
        }
        return RgbImage(size.width, size.height, bytes)
    }
}
