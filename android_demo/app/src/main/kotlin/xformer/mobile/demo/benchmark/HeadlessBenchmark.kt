package xformer.mobile.demo.benchmark

import java.io.File
import java.io.IOException
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.runBlocking
import xformer.mobile.EngineOffer
import xformer.mobile.core.Bundle
import xformer.mobile.core.XFormerException

/** A bundle that was found by its [name], opened, and how it can be run here. */
class OpenedBundle(val name: String, val bundle: Bundle, val offers: List<EngineOffer>)

/**
 * A benchmark without a user: reads arguments, measures, writes the results and how it ended. Blocks.
 *
 * @param directory where the files go; null where the device has no place for them.
 * @param open opens the bundle of that name; null is the first one.
 * @param measure compares and measures; see [DeviceBenchmark.run].
 * @param log takes the line that says how it ended.
 */
class HeadlessBenchmark(
    private val directory: File?,
    private val open: suspend (String?) -> OpenedBundle,
    private val measure: (Bundle, HeadlessArguments, List<BenchmarkTarget>, (BenchmarkStep) -> Unit) -> BenchmarkReport,
    private val log: (String) -> Unit,
) {
    /** Do what [given] asks for; [report] is called often, and may throw a [CancellationException]. Never throws. */
    fun run(given: Map<String, Any?>, report: (BenchmarkStep) -> Unit): HeadlessStatus {
        // The status goes where it is looked for, whatever else the arguments are.
        val output = HeadlessArguments.outputOf(given)
        val status = try {
            // So that what an older run has left is not taken for this one's.
            store().delete(output)
            store().delete(ResultName.status(output))
            measured(HeadlessArguments.of(given), report)
        } catch (_: CancellationException) {
            HeadlessStatus.error("the benchmark was cut off: the app left the screen")
        } catch (error: XFormerException) {
            HeadlessStatus.error(error.message.orEmpty())
        } catch (error: IOException) {
            HeadlessStatus.error("the results can't be written: ${error.message}")
        } catch (error: RuntimeException) { // whatever it is, who waits must hear of it
            HeadlessStatus.error("the benchmark failed: $error")
        } catch (_: OutOfMemoryError) {
            HeadlessStatus.error("the memory is not enough")
        }
        return finished(output, status)
    }

    private fun measured(arguments: HeadlessArguments, report: (BenchmarkStep) -> Unit): HeadlessStatus {
        val opened = runBlocking { open(arguments.bundle) }
        val formats = opened.bundle.formats
        val targets = BenchmarkTargets.choose(opened.offers, formats, arguments.engines, arguments.accelerators)
        val found = measure(opened.bundle, arguments, targets, report)
        found.run?.let { store().write(arguments.output, it.toJson()) }
        return HeadlessStatus.of(opened.name, found, arguments.output.takeIf { found.run != null })
    }

    private fun finished(output: String, status: HeadlessStatus): HeadlessStatus {
        val written = try {
            store().write(ResultName.status(output), status.toJson())
            status
        } catch (error: IOException) {
            HeadlessStatus.error("${status.message}; the status can't be written: ${error.message}")
        }
        log(written.toLogLine())
        return written
    }

    private fun store(): ResultStore =
        ResultStore(directory ?: throw IOException("the device's shared storage is not there"))
}
