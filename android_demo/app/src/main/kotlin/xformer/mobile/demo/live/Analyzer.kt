package xformer.mobile.demo.live

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.launch

/**
 * Between the camera and the model: analyzes one frame at a time, always the newest; a frame that a newer one replaces
 * is dropped. Every frame is closed exactly once, whatever happens to it.
 *
 * @param F a frame: closed when it is no longer needed.
 * @param R what the analysis of a frame returns.
 * @param scope runs the analysis; when it is cancelled, so is this.
 * @param analyze must not use the frame after it has returned.
 * @param deliver gets each result or failure, in order, in [scope].
 */
class Analyzer<F : AutoCloseable, R>(
    scope: CoroutineScope,
    private val analyze: suspend (F) -> R,
    private val deliver: suspend (Result<R>) -> Unit,
) : AutoCloseable {
    private val frames = Channel<F>(Channel.CONFLATED) { it.close() }

    private val job = scope.launch {
        for (frame in frames) deliver(frame.use { analyzed(it) })
    }

    init {
        job.invokeOnCompletion { frames.cancel() }
    }

    /** Take over a frame; may be called from any thread. */
    fun offer(frame: F) {
        if (!frames.trySend(frame).isSuccess) frame.close()
    }

    /** No result is delivered any more, and frames that wait or come are closed; a running analysis ends by itself. */
    override fun close() {
        job.cancel()
        frames.cancel()
    }

    private suspend fun analyzed(frame: F): Result<R> = try {
        Result.success(analyze(frame))
    } catch (error: CancellationException) {
        throw error
    } catch (error: Exception) {
        Result.failure(error)
    } catch (error: OutOfMemoryError) {
        Result.failure(error)
    }
}
