package xformer.mobile.core

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.decodeFromJsonElement
import java.io.IOException
import java.io.InputStream

/**
 * What a bundle's manifest.json says: xformer_mobile/schemas/manifest.schema.json, schema version 1.x.
 *
 * One that was [read] has been checked: it follows the schema and does not contradict itself. Fields that are not known
 * are ignored. Shapes are row-major.
 */
@Serializable
public data class Manifest(
    @SerialName("schema_version") val schemaVersion: String,
    val generator: Generator,
    val model: Model,
    val input: Input,
    val outputs: List<Output>,
    val postprocess: Postprocess,
    /** fp32, fp16, int8 or int8-weights. */
    val precision: String,
    val artifacts: List<Artifact>,
    val golden: List<Golden>,
    /** By format: what was measured when the bundle was made. Empty where it was not. */
    val parity: Map<String, Parity>,
    val report: FileEntry? = null,
    val calibration: Calibration? = null,
    val auto: Auto? = null,
) {
    /** Every file that is no artifact. */
    internal fun fileEntries(): List<FileEntry> =
        golden.flatMap { listOf(it.input) + it.outputs.values } + listOfNotNull(report)

    /** The tool that made the bundle. */
    @Serializable
    public data class Generator(val name: String, val version: String)

    /** What the reference model is. */
    @Serializable
    public data class Model(
        val task: Task,
        val variant: String,
        @SerialName("num_classes") val numClasses: Int,
        val labels: List<String>,
        val parameters: Long,
        /** Multiply-accumulates for one picture. */
        val macs: Long,
        val weights: Weights,
    )

    /** Where the weights come from, and the sha256 of that file. */
    @Serializable
    public data class Weights(
        val source: WeightsSource,
        val sha256: String,
        val part: String? = null,
        val seed: Long? = null,
    )

    /** A source of weights. */
    @Serializable
    public enum class WeightsSource {
        /** A user's training. */
        @SerialName("checkpoint")
        CHECKPOINT,

        /** The project's sample weights, which know drawn scenes only. */
        @SerialName("sample")
        SAMPLE,

        /** Drawn at random: the predictions mean nothing. */
        @SerialName("untrained")
        UNTRAINED,
    }

    /** What every artifact takes: the bytes of an RGB picture. */
    @Serializable
    public data class Input(
        val name: String,
        /** 1, height, width, 3. */
        val shape: List<Int>,
        val dtype: String,
        val layout: String,
        val color: String,
        val resize: Resize,
        val normalization: Normalization,
    )

    /** How a picture becomes the input, see [Fit]. */
    @Serializable
    public data class Resize(
        val rule: ResizeRule,
        val resampling: String,
        @SerialName("pad_color") val padColor: List<Int>? = null,
        @SerialName("cover_ratio") val coverRatio: List<Int>? = null,
    )

    /** For information: it is part of every artifact's graph. */
    @Serializable
    public data class Normalization(
        @SerialName("in_graph") val inGraph: Boolean,
        val mean: List<Double>,
        val std: List<Double>,
    )

    /** A float32 output. */
    @Serializable
    public data class Output(val name: String, val shape: List<Int>, val dtype: String, val meaning: String)

    /** The task's constants; those of other tasks are null. */
    @Serializable
    public data class Postprocess(
        @SerialName("top_k") val topK: Int? = null,
        /** By scale, finest first: the anchors' width and height in input pixels. */
        val anchors: List<List<List<Double>>>? = null,
        val strides: List<Int>? = null,
        @SerialName("score_threshold") val scoreThreshold: Double? = null,
        @SerialName("iou_threshold") val iouThreshold: Double? = null,
        @SerialName("max_detections") val maxDetections: Int? = null,
        val palette: List<List<Int>>? = null,
    )

    /** One converted model: a file, or a directory for [Format.COREML]. */
    @Serializable
    public data class Artifact(
        val format: Format,
        val file: String,
        val sha256: String,
        @SerialName("size_bytes") val sizeBytes: Long,
        @SerialName("input_dtype") val inputDtype: String,
        @SerialName("input_layout") val inputLayout: String,
        /** What a runtime must support. */
        val requires: JsonObject,
        /** The tools that made it, with their versions. */
        val tools: Map<String, String>,
        val quantization: Quantization? = null,
    )

    /** What of an artifact is in int8. */
    @Serializable
    public data class Quantization(
        @SerialName("fp32_size_bytes") val fp32SizeBytes: Long,
        @SerialName("size_ratio") val sizeRatio: Double,
        val target: String? = null,
        val ranges: Ranges? = null,
        val macs: Int8Share,
        val ops: Int8Share,
        @SerialName("moved_bytes") val movedBytes: Int8Share,
        val weights: Int8Share,
        @SerialName("qdq_pairs") val qdqPairs: Long,
        @SerialName("float_islands") val floatIslands: List<FloatIsland>,
        @SerialName("float_island_count") val floatIslandCount: Long,
    )

    /** How the activations' ranges were chosen. */
    @Serializable
    public data class Ranges(val method: String, @SerialName("snr_db") val snrDb: Map<String, Double?>)

    /** How much of something is in int8: so many of [all], and the [share] 0..1. */
    @Serializable
    public data class Int8Share(val int8: Long, val all: Long, val share: Double)

    /** Float operators that are connected, between int8 ones. */
    @Serializable
    public data class FloatIsland(val ops: Long, val macs: Long, val kinds: Map<String, Long>, val first: String)

    /** The pictures that the activations' ranges are from. */
    @Serializable
    public data class Calibration(val source: String, val pictures: Long, val seed: Long, val skipped: Long)

    /** How the recipe was found. */
    @Serializable
    public data class Auto(
        @SerialName("max_drop") val maxDrop: Double,
        val metric: String,
        val pictures: Long,
        val reference: Double,
        val recipe: String,
        @SerialName("float_parts") val floatParts: List<FloatPart>,
        val tried: List<JsonObject>,
    )

    /** A part of the model that stays float; [noise] is what rounding it alone does to the outputs, of their power. */
    @Serializable
    public data class FloatPart(val path: String, val macs: Long, val noise: Double)

    /** A golden input, a PNG of the input's size, and the reference model's outputs for it by name. */
    @Serializable
    public data class Golden(val input: FileEntry, val outputs: Map<String, FileEntry>)

    /** A file of the bundle: its path below the bundle's directory, and the sha256 of its content. */
    @Serializable
    public data class FileEntry(val file: String, val sha256: String)

    /** An artifact against the reference model on the golden inputs. */
    @Serializable
    public data class Parity(
        val engine: String,
        val images: Long,
        val passed: Boolean,
        /** By name: relative_max, snr_db, agreement. */
        val tolerance: Map<String, Double>,
        /** Figures by output and name; null where one is not finite. */
        val outputs: Map<String, Map<String, Double?>>,
        val agreement: ParityAgreement,
    )

    /** The [share], 0..1, of the task's results that agree. */
    @Serializable
    public data class ParityAgreement(val name: String, val share: Double)

    public companion object {
        /** The name of a bundle's manifest. */
        public const val FILE: String = "manifest.json"

        internal const val MAX_BYTES = 16 shl 20

        private val json = Json { ignoreUnknownKeys = true }

        /**
         * Reads and checks a manifest alone, such as one in an app's assets: what a bundle says of itself, before it is
         * unpacked. [name] is what messages call it. Does not close [source].
         *
         * @throws BundleException it can't be read, is not JSON, no manifest, of a newer major version, or contradicts
         *     itself.
         */
        public fun read(source: InputStream, name: String = FILE): Manifest = parse(content(source, name), name)

        /** The bytes of a manifest; one more than there may be where there are more. */
        internal fun content(source: InputStream, name: String): ByteArray = try {
            source.readAtMost(MAX_BYTES + 1)
        } catch (error: IOException) {
            throw BundleException("can't read $name: ${error.message}", error)
        }

        /** As [read]. */
        internal fun parse(content: ByteArray, name: String): Manifest {
            if (content.size > MAX_BYTES) {
                throw BundleException("$name has more than $MAX_BYTES bytes; a manifest is smaller")
            }
            try {
                val document = StrictJson.parse(content)
                checkVersion(document)
                checkFits(serializer().descriptor, document)
                val manifest = json.decodeFromJsonElement<Manifest>(document)
                checkSchema(manifest)
                checkConsistency(manifest)
                return manifest
            } catch (error: JsonException) {
                throw BundleException("$name is not JSON: ${error.message}", error)
            } catch (error: ManifestException) {
                throw BundleException("$name ${error.message}", error)
            }
        }
    }
}
