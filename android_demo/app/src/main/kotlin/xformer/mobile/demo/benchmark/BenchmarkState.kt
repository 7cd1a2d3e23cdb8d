package xformer.mobile.demo.benchmark

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancel
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch

/** What a [BenchmarkState] does. */
sealed interface BenchmarkPhase {
    /** Nothing yet. */
    data object Idle : BenchmarkPhase

    /** [step] is null before the first one; [share] is how much is done, 0..1. */
    data class Running(val step: BenchmarkStep?, val share: Double) : BenchmarkPhase

    /** It came to its end. */
    data class Done(val report: BenchmarkReport) : BenchmarkPhase

    /** It was stopped. */
    data object Cancelled : BenchmarkPhase

    /** It could not begin, or broke off. */
    data class Failed(val message: String) : BenchmarkPhase
}

/**
 * One benchmark at a time, which goes on while the device is turned.
 *
 * @param thread everything is done in it; it should be one thread, for some engines want to be opened and run by one.
 */
class BenchmarkState(private val thread: CoroutineDispatcher) : AutoCloseable {
    private val scope = CoroutineScope(thread)
    private val phases = MutableStateFlow<BenchmarkPhase>(BenchmarkPhase.Idle)
    private var job: Job? = null

    val phase: StateFlow<BenchmarkPhase> = phases.asStateFlow()

    /**
     * Begin a benchmark, unless one runs. [work] gets a function to tell its steps to, which throws once the benchmark
     * is cancelled.
     */
    fun start(targets: List<BenchmarkTarget>, work: (report: (BenchmarkStep) -> Unit) -> BenchmarkReport) {
        if (job?.isCompleted == false) return
        val bar = BenchmarkProgressBar(targets)
        phases.value = BenchmarkPhase.Running(null, 0.0)
        val started = scope.launch {
            phases.value = try {
                val report = work { step ->
                    ensureActive()
                    phases.value = BenchmarkPhase.Running(step, bar.at(step))
                }
                BenchmarkPhase.Done(report)
            } catch (_: CancellationException) {
                BenchmarkPhase.Cancelled
            } catch (error: Exception) {
                BenchmarkPhase.Failed(error.message ?: error.javaClass.simpleName)
            }
        }
        // One that is cancelled before its thread comes to it never begins.
        started.invokeOnCompletion { phases.update { if (it is BenchmarkPhase.Running) BenchmarkPhase.Cancelled else it } }
        job = started
    }

    /** Stop after the run that is under way. */
    fun cancel() {
        job?.cancel()
    }

    override fun close() {
        scope.cancel()
    }
}
