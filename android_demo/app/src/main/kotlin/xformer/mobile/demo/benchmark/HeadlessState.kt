package xformer.mobile.demo.benchmark

import android.net.Uri
import android.util.Log
import java.io.File
import java.io.IOException
import java.io.OutputStream
import java.util.concurrent.CancellationException
import kotlin.concurrent.thread
import xformer.mobile.XFormer
import xformer.mobile.demo.Demo

/**
 * What the headless screen keeps while the device is turned: one benchmark, on a thread of its own.
 *
 * @param directory where the files go.
 * @param openLog opens what a game loop test gives for its log.
 */
class HeadlessState(
    private val demo: Demo,
    private val directory: File?,
    private val openLog: (Uri) -> OutputStream?,
) : AutoCloseable {
    @Volatile
    private var cancelled = false

    /**
     * Begin the benchmark that [given] asks for, unless one runs. [gameLoopLog] is written too, where it is given.
     *
     * @return whether it has begun.
     */
    fun start(given: Map<String, Any?>, gameLoopLog: Uri?): Boolean {
        if (!HeadlessRuns.begin()) {
            Log.w(TAG, "a benchmark runs; the one that was asked for is left out")
            return false
        }
        cancelled = false
        thread(name = "benchmark") {
            val status = benchmark().run(given, ::tell)
            if (gameLoopLog != null) writeLog(gameLoopLog, status)
            HeadlessRuns.end(status)
        }
        return true
    }

    /** Cut the benchmark off. */
    override fun close() {
        cancelled = true
    }

    private fun benchmark() = HeadlessBenchmark(
        directory,
        { name ->
            val stored = demo.bundles.find(name)
            val bundle = demo.bundles.open(stored)
            OpenedBundle(stored.name, bundle, XFormer.engines(bundle))
        },
        { bundle, arguments, targets, report ->
            DeviceBenchmark(demo, bundle, arguments.threads).run(targets, arguments.runs, report)
        },
        { Log.i(TAG, it) },
    )

    private fun tell(step: BenchmarkStep) {
        if (cancelled) throw CancellationException("left")
        HeadlessRuns.tell(step)
    }

    private fun writeLog(uri: Uri, status: HeadlessStatus) {
        try {
            openLog(uri)?.use { it.write(status.toJson().toByteArray()) }
        } catch (error: IOException) {
            Log.w(TAG, "the game loop's log can't be written: ${error.message}")
        } catch (error: RuntimeException) { // whatever the other app's provider throws
            Log.w(TAG, "the game loop's log can't be written: ${error.message}")
        }
    }

    private companion object {
        const val TAG = "XFormer"
    }
}
