package xformer.mobile.demo.benchmark

import java.io.File
import java.io.IOException
import java.util.concurrent.Executors
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.launch
import xformer.mobile.EngineChoice
import xformer.mobile.EngineOffer
import xformer.mobile.XFormer
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Bundle
import xformer.mobile.core.Format
import xformer.mobile.core.XFormerException
import xformer.mobile.demo.Demo

/** An engine with an accelerator; [problem] says why it can't be measured, null where it can. */
data class Way(
    val engine: EngineChoice,
    val accelerator: Accelerator,
    val formats: List<Format>,
    val problem: String?,
)

/** What is to be measured. */
sealed interface Subject {
    /** The bundle is being opened. */
    data object Opening : Subject

    /** There is nothing to measure; [text] says why. */
    data class None(val text: String) : Subject

    /** A bundle and how it can be run. */
    class Ready(val name: String, val bundle: Bundle, val offers: List<EngineOffer>) : Subject {
        /** The offers, with the formats of one engine and accelerator together. */
        val ways: List<Way> = offers.groupBy { it.engine to it.accelerator }.map { (way, of) ->
            Way(way.first, way.second, of.map { it.format }, of.firstNotNullOfOrNull { it.problem })
        }
    }
}

/** What the benchmark's screen keeps while the device is turned. For the main thread. */
class BenchmarkScreenState(private val demo: Demo) : AutoCloseable {
    private val scope = CoroutineScope(Dispatchers.IO)

    // One thread: the GPU delegate is opened, run and closed by the same.
    private val thread = Executors.newSingleThreadExecutor { Thread(it, "benchmark") }.asCoroutineDispatcher()
    private val benchmark = BenchmarkState(thread)
    private val subjects = MutableStateFlow<Subject>(Subject.Opening)

    val subject: StateFlow<Subject> = subjects.asStateFlow()

    val phase: StateFlow<BenchmarkPhase> get() = benchmark.phase

    /** What is chosen; null until the user has chosen: then the first way of each engine that is there. */
    var chosen: Set<Way>? = null

    /** Timed runs of each target. */
    var runs = 300

    init {
        scope.launch {
            subjects.value = try {
                val stored = demo.bundles.find(demo.choice.bundle)
                val bundle = demo.bundles.open(stored)
                Subject.Ready(stored.name, bundle, XFormer.engines(bundle))
            } catch (error: XFormerException) {
                Subject.None(demo.problem(error))
            }
        }
    }

    /** The ways that are measured, as long as the user has not chosen others. */
    fun waysOf(ready: Subject.Ready): Set<Way> =
        chosen ?: ready.ways.filter { it.problem == null }.distinctBy { it.engine }.toSet()

    /** Measure what is chosen. */
    fun start(ready: Subject.Ready) {
        val targets = waysOf(ready).flatMap { way ->
            way.formats.map { BenchmarkTarget(it, way.engine, way.accelerator, way.problem) }
        }
        if (targets.isEmpty()) return
        val run = DeviceBenchmark(demo, ready.bundle, demo.choice.threads)
        val count = runs
        benchmark.start(targets) { report -> run.run(targets, count, report) }
    }

    fun cancel() = benchmark.cancel()

    /**
     * Write the measurements, every sample of them, to a file that can be shared. Not for the main thread.
     *
     * @return null where there are none.
     * @throws IOException there is no room.
     */
    fun export(): File? {
        val run = (phase.value as? BenchmarkPhase.Done)?.report?.run ?: return null
        val name = "latency-${run.created.filter { it.isDigit() }}${ResultName.SUFFIX}"
        return demo.results.write(name, run.toJson())
    }

    override fun close() {
        scope.cancel()
        benchmark.close()
        thread.close()
    }
}
