package xformer.mobile

import java.io.File
import java.util.Locale
import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import xformer.mobile.core.Classifications
import xformer.mobile.core.ClassMap
import xformer.mobile.core.Detections
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineOptions
import xformer.mobile.core.Format
import xformer.mobile.core.GoldenReplay
import xformer.mobile.core.ParityResult
import xformer.mobile.core.Prediction
import xformer.mobile.core.Predictor
import xformer.mobile.core.Preprocess
import xformer.mobile.core.Tensor
import xformer.mobile.engine.EngineKind

/** A format of a bundle in the engine of this project, against what Python made of the same pictures. */
internal class ParityRow(
    val bundle: String,
    val format: Format,
    val engine: String,
    val pythonEngine: String,
    val pictures: Int,
    /** Of how many pictures the input is the same, byte for byte. */
    val sameInputs: Int,
    /** The largest difference of an output on a picture, as a share of that output's range over all pictures. */
    val largestDifference: Double,
    /** Of how many pictures the result is the same: the classes in order; the boxes; the class of every pixel. */
    val sameResults: Int,
    /** Of class maps: pixels of another class, and how many of those are a tie within the outputs' difference. */
    val otherPixels: Int,
    val tiedPixels: Int,
    /** What is wrong, one sentence each. */
    val misses: List<String>,
    /** Against the reference model's outputs, by the tolerance of the manifest. */
    val golden: ParityResult,
) {
    fun toJson(): JsonObject = JsonObject(
        mapOf(
            "bundle" to JsonPrimitive(bundle),
            "format" to JsonPrimitive(format.id),
            "engine" to JsonPrimitive(engine),
            "python_engine" to JsonPrimitive(pythonEngine),
            "pictures" to JsonPrimitive(pictures),
            "same_inputs" to JsonPrimitive(sameInputs),
            "largest_difference" to JsonPrimitive(largestDifference),
            "same_results" to JsonPrimitive(sameResults),
            "other_pixels" to JsonPrimitive(otherPixels),
            "tied_pixels" to JsonPrimitive(tiedPixels),
            "misses" to JsonArray((misses + golden.misses).map { JsonPrimitive(it) }),
            "golden_pictures" to JsonPrimitive(golden.images),
            "golden_passed" to JsonPrimitive(golden.passed),
            "golden_relative_max" to JsonPrimitive(golden.outputs.maxOf { it.relativeMax }),
            "golden_snr_db" to JsonPrimitive(golden.outputs.minOf { it.snrDb }.takeIf { it.isFinite() }),
            "golden_agreement" to JsonPrimitive(golden.agreement.share),
        ),
    )
}

internal object Parity {
    /** How far an output may be from Python's, as a share of its range. */
    const val MAX_DIFFERENCE = 1e-4

    private const val MAX_PROBABILITY = 1e-4
    private const val MAX_CORNER = 1e-3

    val COLUMNS = listOf(
        "bundle", "format", "engine", "Python's", "pictures", "largest difference", "same results",
        "golden: difference", "golden: SNR", "golden: agreement",
    )

    /** On at most [most] pictures; [change] may put something between the engine and the comparison. */
    fun measure(
        bundles: File,
        name: String,
        format: Format,
        most: Int = Int.MAX_VALUE,
        change: (Engine) -> Engine = { it },
    ): ParityRow {
        val fixtures = Fixtures(bundles, name)
        val kind = checkNotNull(EngineKind.of(format))
        val options = EngineOptions(fixtures.threads, kind.accelerators.first())
        val engine = kind.open(fixtures.bundle, fixtures.bundle.artifact(format), options)
        return Predictor(fixtures.bundle, change(engine)).use { Comparison(fixtures, format, it, most).row(name) }
    }

    private class Comparison(
        private val fixtures: Fixtures,
        private val format: Format,
        private val predictor: Predictor,
        most: Int,
    ) {
        private val cases = fixtures.cases.take(most)

        /**
         * On ARM, ONNX Runtime computes parts of an int8 file in integers that it computes in floats on x86: both are
         * right, and not the same. What they differ by is then told, and the manifest's tolerance is what must hold.
         */
        private val isHeld =
            fixtures.bundle.precision != "int8" || fixtures.architecture == System.getProperty("os.arch")
        private val misses = mutableListOf<String>()
        private var otherPixels = 0
        private var tiedPixels = 0

        fun row(name: String): ParityRow {
            val bundle = fixtures.bundle
            val low = mutableMapOf<String, Float>()
            val high = mutableMapOf<String, Float>()
            val apart = mutableMapOf<String, Float>()
            var sameInputs = 0
            var sameResults = 0
            for (case in cases) {
                val image = case.image()
                val fitted = Preprocess.preprocess(image, bundle.imageSize, bundle.resizeRule)
                val isSame = fitted.image.bytes.contentEquals(case.input())
                if (isSame) sameInputs++ else misses += "${case.name}: other input"
                val found = predictor.engine.run(fitted.image)
                val expected = case.outputs(format)
                var furthest = 0f
                for ((output, reference) in expected) {
                    low.merge(output, reference.values.min(), ::min)
                    high.merge(output, reference.values.max(), ::max)
                    val difference = difference(reference, found.getValue(output))
                    apart.merge(output, difference, ::max)
                    furthest = max(furthest, difference)
                }
                val said = compare(case, expected, furthest, predictor.predict(image))
                if (said == null && isSame) sameResults++
                if (said != null && isHeld) misses += "${case.name}: $said"
            }
            val largest = apart.maxOf { (output, difference) ->
                difference.toDouble() / (high.getValue(output) - low.getValue(output))
            }
            // Written so that NaN is a miss.
            if (isHeld && !(largest <= MAX_DIFFERENCE)) misses += "an output differs by $largest of its range"
            val report = predictor.engine.report
            val tool = if (format == Format.TFLITE) "ai-edge-litert" else "onnxruntime"
            return ParityRow(
                name,
                format,
                "${report.engine} ${report.version}",
                fixtures.tools.getValue(tool),
                cases.size,
                sameInputs,
                largest,
                sameResults,
                otherPixels,
                tiedPixels,
                misses,
                GoldenReplay.run(bundle, format, predictor.engine, pngs),
            )
        }

        private fun difference(a: Tensor, b: Tensor): Float {
            var largest = 0f
            for (i in a.values.indices) largest = max(largest, abs(a.values[i] - b.values[i]))
            return largest
        }

        /** What is not the same, in words; null where nothing is. */
        private fun compare(
            case: Fixtures.Case,
            outputs: Map<String, Tensor>,
            furthest: Float,
            found: Prediction,
        ): String? = when (val expected = case.result(format)) {
            is Classifications -> compareClasses(expected, found as Classifications)
            is Detections -> compareBoxes(expected, found as Detections)
            is ClassMap -> comparePixels(expected, found as ClassMap, outputs.getValue("logits"), furthest)
        }

        private fun compareClasses(expected: Classifications, found: Classifications): String? = when {
            expected.map { it.index to it.label } != found.map { it.index to it.label } ->
                "${found.map { it.label }}, not ${expected.map { it.label }}"
            expected.zip(found).any { (a, b) -> !(abs(a.probability - b.probability) <= MAX_PROBABILITY) } ->
                "$found, not $expected"
            else -> null
        }

        private fun compareBoxes(expected: Detections, found: Detections): String? = when {
            expected.map { it.index to it.label } != found.map { it.index to it.label } -> "$found, not $expected"
            expected.zip(found).any { (a, b) ->
                val corners = listOf(a.box.x1 - b.box.x1, a.box.y1 - b.box.y1, a.box.x2 - b.box.x2, a.box.y2 - b.box.y2)
                !(corners.all { abs(it) <= MAX_CORNER } && abs(a.score - b.score) <= MAX_PROBABILITY)
            } -> "$found, not $expected"
            else -> null
        }

        /** A pixel may be of another class where Python's logits of both are nearer than what the outputs differ by. */
        private fun comparePixels(expected: ClassMap, found: ClassMap, logits: Tensor, furthest: Float): String? {
            if (expected.width != found.width || expected.height != found.height) return "a map of another size"
            var decided = 0
            for (y in 0 until expected.height) {
                for (x in 0 until expected.width) {
                    val ours = found.classAt(x, y)
                    val theirs = expected.classAt(x, y)
                    if (ours == theirs) continue
                    otherPixels++
                    val margin = at(logits, theirs, x, y, expected) - at(logits, ours, x, y, expected)
                    if (abs(margin) <= 2 * furthest) tiedPixels++ else decided++
                }
            }
            return if (decided == 0) null else "$decided pixels are of another class"
        }

        /** A class's logit at a pixel of the map, interpolated. */
        private fun at(logits: Tensor, channel: Int, x: Int, y: Int, map: ClassMap): Double {
            val (_, _, rows, columns) = logits.shape.toList()
            val (top, bottom, down) = taps(y, rows, map.height)
            val (left, right, across) = taps(x, columns, map.width)
            fun value(row: Int, column: Int) = logits.values[(channel * rows + row) * columns + column].toDouble()
            fun between(a: Double, b: Double, share: Double) = a + (b - a) * share
            return between(
                between(value(top, left), value(bottom, left), down),
                between(value(top, right), value(bottom, right), down),
                across,
            )
        }

        private fun taps(target: Int, size: Int, of: Int): Triple<Int, Int, Double> {
            val position = ((target + 0.5) * (size.toDouble() / of) - 0.5).coerceIn(0.0, size - 1.0)
            val first = floor(position).toInt()
            return Triple(first, min(first + 1, size - 1), position - first)
        }
    }

    fun toJson(rows: List<ParityRow>): JsonArray = JsonArray(rows.map { it.toJson() })

    /** A table in Markdown. */
    fun toMarkdown(rows: List<ParityRow>): String = buildString {
        appendLine("| ${COLUMNS.joinToString(" | ")} |")
        appendLine("|---".repeat(COLUMNS.size) + "|")
        for (row in rows) {
            val cells = listOf(
                row.bundle,
                row.format.id,
                row.engine,
                row.pythonEngine,
                row.pictures.toString(),
                "%.1e".format(Locale.ROOT, row.largestDifference),
                listOfNotNull(
                    "${row.sameResults} of ${row.pictures}",
                    if (row.tiedPixels > 0) "${row.tiedPixels} tied pixels" else null,
                ).joinToString(),
                "%.1e".format(Locale.ROOT, row.golden.outputs.maxOf { it.relativeMax }),
                "%.1f dB".format(Locale.ROOT, row.golden.outputs.minOf { it.snrDb }),
                "%.2f %%".format(Locale.ROOT, 100 * row.golden.agreement.share),
            )
            appendLine("| ${cells.joinToString(" | ")} |")
        }
    }
}
