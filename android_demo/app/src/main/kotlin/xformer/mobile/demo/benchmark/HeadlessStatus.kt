package xformer.mobile.demo.benchmark

import xformer.mobile.demo.model.EngineIds

/** How a headless benchmark ended: what its log line and its status file say. */
data class HeadlessStatus(
    val state: State,
    val message: String,
    val bundle: String?,
    val results: String?,
    val outcomes: List<BenchmarkOutcome>,
) {
    /** [id] is what files and logs call it. */
    enum class State(val id: String) {
        /** Every target was measured, and computes what the reference computes. */
        PASSED("passed"),

        /** One or more (all of them, perhaps) were not measured, or compute something else. */
        FAILED("failed"),

        /** It came to nothing: the arguments or the bundle can't be right, or the benchmark was cut off. */
        ERROR("error"),
    }

    /** The status file. */
    fun toJson(): String = Json.write(
        mapOf(
            "status" to state.id,
            "message" to message,
            "bundle" to bundle,
            "results" to results,
            "targets" to outcomes.map(::target),
        ),
    ) + "\n"

    /** One line for the log. */
    fun toLogLine(): String = LOG_PREFIX + " ${state.id}: $message".replace(Regex("\\s+"), " ")

    private fun target(outcome: BenchmarkOutcome): Map<String, Any?> = mapOf(
        "format" to outcome.target.format.id,
        "engine" to EngineIds.idOf(outcome.target.engine),
        "accelerator" to outcome.target.accelerator.id,
        "used" to outcome.engine?.used?.id,
        "parity" to outcome.parity?.let(::parity),
        "inference_median_ns" to outcome.measurement?.statistics()?.get("inference")?.p50Ns,
        "too_noisy" to outcome.measurement?.disturbances?.tooNoisy,
        "thermal_state" to outcome.measurement?.disturbances?.thermalState,
        "error" to outcome.error,
    )

    private fun parity(parity: Parity): Map<String, Any?> = mapOf(
        "passed" to parity.passed,
        "images" to parity.images,
        "outputs" to
            parity.outputs.associate {
                it.name to mapOf("relative_max" to it.relativeMax, "snr_db" to it.snrDb, "max_abs" to it.maxAbs)
            },
        "agreement" to mapOf("name" to parity.agreement.name, "share" to parity.agreement.share),
        "misses" to parity.misses,
    )

    companion object {
        /** What scripts look for in the log. */
        const val LOG_PREFIX = "XFORMER_RESULT:"

        /** The status of a benchmark that came to its end. [results] is the file that was written. */
        fun of(bundle: String, report: BenchmarkReport, results: String?): HeadlessStatus {
            val good = report.outcomes.count { it.passed }
            val message = "$good of ${report.outcomes.size} passed" + (results?.let { "; measurements in $it" } ?: "")
            val state = if (report.passed) State.PASSED else State.FAILED
            return HeadlessStatus(state, message, bundle, results, report.outcomes)
        }

        /** The status of one that came to nothing. */
        fun error(message: String, bundle: String? = null): HeadlessStatus =
            HeadlessStatus(State.ERROR, message, bundle, null, emptyList())
    }
}
