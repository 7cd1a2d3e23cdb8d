package xformer.mobile.core

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json

/**
 * What one session on one phone measured: raw samples in nanoseconds, by artifact, engine and phase.
 *
 * The document of xformer_mobile/schemas/latency_run.schema.json, which `xformer-bench show` reads. A field whose
 * default is null is left out where it is null.
 */
@Serializable
public data class LatencyRun(
    @SerialName("schema_version") val schemaVersion: String,
    val generator: Generator,
    /** UTC, such as 2025-01-31T12:00:00Z. */
    val created: String,
    val machine: Machine,
    /** Versions by name. */
    val tools: Map<String, String>,
    val measurements: List<Measurement>,
) {
    /** What wrote the document. */
    @Serializable
    public data class Generator(val name: String, val version: String)

    /** The file's content. */
    public fun toJson(): String = Json.encodeToString(serializer(), this) + "\n"

    internal companion object {
        const val SCHEMA_VERSION = "1.0"
    }
}

/**
 * The phone or computer that measured.
 *
 * @throws BenchmarkException a text that must be there is empty, or a number can't be.
 */
@Serializable
public data class Machine(
    /** The same for the same machine, and for no other: a hash, no name and no serial number. */
    val id: String,
    /** The same until the machine is started anew. */
    val boot: String? = null,
    val system: String,
    val release: String? = null,
    val architecture: String? = null,
    /** Such as "Pixel 8". */
    val model: String? = null,
    val cpu: String? = null,
    val cpus: Int? = null,
    @SerialName("usable_cpus") val usableCpus: Int? = null,
    @SerialName("memory_bytes") val memoryBytes: Long? = null,
    val governor: String? = null,
    @SerialName("load_average") val loadAverage: Double? = null,
) {
    init {
        if (id.length !in TEXT || system.length !in TEXT) {
            throw BenchmarkException("a machine's id and system have 1 to ${TEXT.last} letters each")
        }
        if ((cpus ?: 1) < 1 || (usableCpus ?: 1) < 1 || (memoryBytes ?: 0) < 0) {
            throw BenchmarkException("a machine has 1 processor or more, and memory; leave out what is not known")
        }
        if (loadAverage != null && !(loadAverage >= 0 && loadAverage.isFinite())) {
            throw BenchmarkException("a load average of $loadAverage is not valid; leave it out where it is not known")
        }
    }

    private companion object {
        val TEXT = 1..500
    }
}

/** One artifact on one engine. */
@Serializable
public data class Measurement(
    val model: Model,
    val artifact: Artifact,
    val engine: Engine,
    val phases: Phases,
    val memory: Memory? = null,
    val disturbances: Disturbances? = null,
) {
    /** The model, in the words of its manifest. */
    @Serializable
    public data class Model(
        val task: String,
        val variant: String,
        val precision: String,
        /** Height, width. */
        @SerialName("image_size") val imageSize: List<Int>,
    )

    /** The file that was measured. */
    @Serializable
    public data class Artifact(val format: String, val sha256: String, @SerialName("size_bytes") val sizeBytes: Long)

    /** What ran it. */
    @Serializable
    public data class Engine(
        val name: String,
        /** Null: the engine's own choice. */
        val threads: Int?,
        /** An id of [Accelerator]; "(requested)" behind it where it can't be told whether it computed. */
        val accelerator: String? = null,
    )

    /** What is measured apart. */
    @Serializable
    public data class Phases(
        val load: Phase,
        @SerialName("first_run") val firstRun: Phase,
        val preprocess: Phase,
        val inference: Phase,
        val postprocess: Phase,
    ) {
        /** The phases by name, in the order in which they are shown. */
        public fun byName(): Map<String, Phase> = mapOf(
            "load" to load,
            "first_run" to firstRun,
            "preprocess" to preprocess,
            "inference" to inference,
            "postprocess" to postprocess,
        )
    }

    /** Times in nanoseconds, in the order of measurement. */
    @Serializable
    public data class Phase(
        @SerialName("samples_ns") val samplesNs: List<Long>,
        /** Runs that do not count. */
        @SerialName("warm_ups_ns") val warmUpsNs: List<Long>? = null,
        /** How many of the samples are of each process, in order. */
        val processes: List<Int>? = null,
    )

    /** Resident memory of the process: before loading, loaded, and at most since then. */
    @Serializable
    public data class Memory(
        @SerialName("rss_start_bytes") val rssStartBytes: Long? = null,
        @SerialName("rss_loaded_bytes") val rssLoadedBytes: Long? = null,
        @SerialName("rss_peak_bytes") val rssPeakBytes: Long? = null,
    )

    /** What was noticed; readers judge for themselves from the samples too. */
    @Serializable
    public data class Disturbances(
        /** How often the system took the processor away during inference. */
        val preempted: Long? = null,
        @SerialName("unstable_warm_ups") val unstableWarmUps: Int? = null,
        /** The worst during the run, an id of [ThermalState]. */
        @SerialName("thermal_state") val thermalState: String? = null,
        /** Why the times can't be relied on, in words; empty where they can. */
        @SerialName("too_noisy") val tooNoisy: List<String>? = null,
    )

    /** The statistics of each phase that has samples, by name. */
    public fun statistics(): Map<String, Statistics> = phases.byName()
        .filterValues { it.samplesNs.isNotEmpty() }
        .mapValues { Statistics.of(it.value.samplesNs.toLongArray()) }
}
