package xformer.mobile.demo.benchmark

import java.util.Locale

/**
 * What an instrumentation says of a benchmark: for each target the beginning and the end of a test, then the result.
 * The keys and codes are those of AndroidJUnitRunner, which farms read.
 *
 * @param ignored arguments that were given and mean nothing here.
 */
class InstrumentationReport(
    private val className: String,
    private val status: HeadlessStatus,
    private val ignored: Set<String>,
) {
    private val tests: List<Test> = status.outcomes.map { outcome ->
        val why = (listOfNotNull(outcome.error) + outcome.parity?.misses.orEmpty()).joinToString("; ")
        Test(outcome.target.toString().replace(NOT_IN_NAMES, "_"), if (outcome.passed) null else why)
    }.ifEmpty { listOf(Test("benchmark", status.message)) }

    /** What is sent in order: a code and values by name, numbers or words. */
    val statuses: List<Pair<Int, Map<String, Any>>>
        get() = tests.flatMapIndexed { index, test ->
            val about = mapOf(
                "id" to "XFormer",
                "class" to className,
                "test" to test.name,
                "numtests" to tests.size,
                "current" to index + 1,
            )
            val end = if (test.problem == null) {
                OK to about + ("stream" to ".")
            } else {
                FAILURE to about + mapOf("stack" to test.problem, "stream" to "\n${test.name}: ${test.problem}")
            }
            listOf(START to about + ("stream" to if (index == 0) "\n$className:" else ""), end)
        }

    /** What the result's bundle holds; the measurements themselves are in the file. */
    val result: Map<String, Any>
        get() = buildMap {
            put("stream", "\n\n${verdict()}\n${status.toLogLine()}${told()}\n")
            put("status", status.state.id)
            put("message", status.message)
            status.results?.let { put("output", it) }
            for (outcome in status.outcomes) {
                val median = outcome.measurement?.statistics()?.get("inference")?.p50Ns ?: continue
                put("inference_median_ms ${outcome.target}", "%.3f".format(Locale.ROOT, median / NS_PER_MS))
            }
        }

    private fun verdict(): String {
        val failed = tests.count { it.problem != null }
        val all = if (tests.size == 1) "1 test" else "${tests.size} tests"
        return if (failed == 0) "OK ($all)" else "FAILURES!!!\nTests run: ${tests.size},  Failures: $failed"
    }

    private fun told(): String = if (ignored.isEmpty()) "" else "\nignored arguments: ${ignored.joinToString()}"

    /** [problem] is null where the test passed. */
    private class Test(val name: String, val problem: String?)

    private companion object {
        const val START = 1
        const val OK = 0
        const val FAILURE = -2
        const val NS_PER_MS = 1e6
        val NOT_IN_NAMES = Regex("[^A-Za-z0-9]+")
    }
}
