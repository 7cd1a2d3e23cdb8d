package xformer.mobile

import java.util.concurrent.Executor
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.RejectedExecutionException
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.withContext
import xformer.mobile.core.UsageException

/** A thread of its own that does one thing after the other, in the order of the calls. */
internal class Worker {
    private val pool = ThreadPoolExecutor(1, 1, 0L, TimeUnit.SECONDS, LinkedBlockingQueue()) { task ->
        Thread(task, "xformer").apply { isDaemon = true }
    }

    @Volatile
    private var isFinished = false

    // Where the thread is gone already, the caller's own thread finds that it is.
    private val dispatcher = Executor { task ->
        try {
            pool.execute(task)
        } catch (_: RejectedExecutionException) {
            task.run()
        }
    }.asCoroutineDispatcher()

    /**
     * Runs [block] on the thread. What has begun is brought to its end even if the caller is cancelled, and the caller
     * waits for that: what the block uses may be closed afterwards.
     *
     * @throws UsageException [finish] was called before the block began.
     */
    suspend fun <T> run(block: () -> T): T = withContext(dispatcher) {
        if (isFinished) throw UsageException("it is closed; open the bundle again")
        block()
    }

    /** Runs [last] on the thread when what has begun is done, and ends it; the first call counts. Does not wait. */
    @Synchronized
    fun finish(last: () -> Unit) {
        if (isFinished) return
        isFinished = true
        pool.execute(last)
        pool.shutdown()
    }
}
