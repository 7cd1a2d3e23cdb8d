package xformer.mobile.demo.benchmark

import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow

/** What a headless benchmark does now. */
sealed interface HeadlessPhase {
    /** None was started. */
    data object Idle : HeadlessPhase

    /** [step] is null before the first one. */
    data class Running(val step: BenchmarkStep?) : HeadlessPhase

    /** It ended; its files are written. */
    data class Done(val status: HeadlessStatus) : HeadlessPhase
}

/**
 * The headless benchmark of this process: the activity does it, an instrumentation waits for it. There is one at most,
 * for two would disturb each other.
 */
object HeadlessRuns {
    private val phases = MutableStateFlow<HeadlessPhase>(HeadlessPhase.Idle)

    val phase: StateFlow<HeadlessPhase> = phases.asStateFlow()

    /** Whether one may begin: takes the place, if none runs. */
    fun begin(): Boolean {
        val now = phases.value
        return now !is HeadlessPhase.Running && phases.compareAndSet(now, HeadlessPhase.Running(null))
    }

    /** Tell what the one that has begun does now. */
    fun tell(step: BenchmarkStep) {
        phases.value = HeadlessPhase.Running(step)
    }

    /** Tell how it ended. */
    fun end(status: HeadlessStatus) {
        phases.value = HeadlessPhase.Done(status)
    }
}
