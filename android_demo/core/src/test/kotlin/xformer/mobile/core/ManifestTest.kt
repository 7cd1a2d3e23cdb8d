package xformer.mobile.core

import com.networknt.schema.InputFormat
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.EnumSource
import java.io.IOException
import java.io.InputStream
import kotlin.random.Random
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/** A manifest is taken if the schema and the Python code take it; everything else is refused in one line. */
class ManifestTest {
    private val schema = schema("manifest")

    private fun parse(text: String): Manifest = Manifest.parse(text.encodeToByteArray(), "manifest.json")

    @ParameterizedTest
    @EnumSource
    fun `an export's manifest is read`(task: Task) {
        val manifest = parse(manifestOf(task).toString())
        assertEquals(task, manifest.model.task)
        assertEquals(listOf("cat", "dog", "cup"), manifest.model.labels)
        assertEquals(listOf(1, 64, 64, 3), manifest.input.shape)
        assertEquals(2, manifest.golden.size)
        assertEquals(manifest.artifacts.size, manifest.artifacts.map { it.format }.distinct().size)
    }

    @Test
    fun `every part of a manifest is read`() {
        val manifest = parse(manifestOf(Task.SEGMENT).toString())
        assertEquals(listOf(Format.ONNX, Format.COREML, Format.TFLITE), manifest.artifacts.map { it.format })
        assertEquals(0.921778, manifest.artifacts[0].quantization?.macs?.share)
        assertEquals(null, manifest.artifacts[0].quantization?.ranges?.snrDb?.getValue("entropy"))
        assertEquals("synthetic", manifest.calibration?.source)
        assertEquals(0.0125, manifest.auto?.floatParts?.single()?.noise)
        assertEquals("ema", manifest.model.weights.part)
        assertEquals(listOf(128, 0, 0), manifest.postprocess.palette?.get(1))
        assertEquals("report.json", manifest.report?.file)
        assertEquals(3.0, manifest.parity.getValue("onnx").tolerance["snr_db"])
    }

    @Test
    fun `a manifest is read alone`() {
        val content = manifestOf(Task.DETECT).toString().encodeToByteArray()
        assertEquals(Manifest.parse(content, "x"), Manifest.read(content.inputStream()))
        assertContains(refusal<BundleException> { Manifest.read("{".byteInputStream()) }, "manifest.json is not JSON")
        val failing = object : InputStream() {
            override fun read(): Int = throw IOException("the card is gone")
        }
        val message = refusal<BundleException> { Manifest.read(failing, "bundles/a/manifest.json") }
        assertEquals("can't read bundles/a/manifest.json: the card is gone", message)
        val endless = object : InputStream() {
            override fun read(): Int = ' '.code
        }
        assertContains(refusal<BundleException> { Manifest.read(endless) }, "has more than 16777216 bytes")
    }

    @Test
    fun `names in Kotlin are those in a manifest`() {
        val names = mapOf(
            Task.serializer() to Task.entries.map { it.id },
            ResizeRule.serializer() to ResizeRule.entries.map { it.id },
            Format.serializer() to Format.entries.map { it.id },
        )
        for ((serializer, ids) in names) {
            assertEquals(List(ids.size, serializer.descriptor::getElementName), ids)
        }
    }

    @Test
    fun `fields of a later minor version are ignored`() {
        val later = Json.parseToJsonElement("""{"lines": "two\nlines", "list": [1, null, 1e999, {}]}""")
        var manifest: JsonElement = manifestOf(Task.DETECT).with("schema_version", JsonPrimitive("1.7"))
        for (place in listOf("later", "model/later", "input/resize/later", "outputs/0/later", "parity/onnx/later")) {
            manifest = manifest.with(place, later)
        }
        assertEquals(Task.DETECT, parse(manifest.toString()).model.task)
    }

    // ---- what is refused ------------------------------------------------------------------------------------

    /** What becomes of the [task]'s manifest when the JSON [value] is at [path]; null takes away what is there. */
    private class Bad(val task: Task, val path: String, val value: String?, val problem: String)

    private fun bad(path: String, value: String?, problem: String, task: Task = Task.CLASSIFY) =
        Bad(task, path, value, problem)

    private val badManifests = mapOf(
        // paths
        "path upwards" to bad("artifacts/0/file", "\"../model.onnx\"", "at artifacts/0/file"),
        "path upwards inside" to bad("artifacts/0/file", "\"golden/../../model.onnx\"", "at artifacts/0/file"),
        "golden path upwards" to bad("golden/0/input/file", "\"../classify/golden/000.png\"", "at golden/0/input/file"),
        "golden output upwards" to bad("golden/0/outputs/logits/file", "\"../x\"", "at golden/0/outputs/logits/file"),
        "report upwards" to bad("report/file", "\"..\"", "at report/file"),
        "absolute path" to bad("artifacts/0/file", "\"/etc/passwd\"", "at artifacts/0/file"),
        "path with backslashes" to bad("artifacts/0/file", "\"golden\\\\000.png\"", "at artifacts/0/file"),
        "path of a drive" to bad("artifacts/0/file", "\"C:model.onnx\"", "at artifacts/0/file"),
        "hidden file" to bad("artifacts/0/file", "\".model.onnx\"", "at artifacts/0/file"),
        "hidden directory" to bad("artifacts/0/file", "\"golden/.hidden/model.onnx\"", "at artifacts/0/file"),
        "empty path" to bad("artifacts/0/file", "\"\"", "at artifacts/0/file"),
        "empty part" to bad("artifacts/0/file", "\"golden//000.png\"", "at artifacts/0/file"),
        "path with NUL" to bad("artifacts/0/file", "\"model\\u0000.onnx\"", "at artifacts/0/file"),
        "path and a newline" to bad("artifacts/0/file", "\"model.onnx\\n\"", "at artifacts/0/file"),
        "long path" to bad("artifacts/0/file", "\"${"m".repeat(256)}\"", "at artifacts/0/file"),
        // sums
        "short sha256" to bad("artifacts/0/sha256", "\"00\"", "at artifacts/0/sha256"),
        "sha256 in capitals" to bad("artifacts/0/sha256", "\"${"A".repeat(64)}\"", "at artifacts/0/sha256"),
        "sha256 and a newline" to bad("report/sha256", "\"${"a".repeat(64)}\\n\"", "at report/sha256"),
        "weights' sha256" to bad("model/weights/sha256", "\"\"", "at model/weights/sha256"),
        // versions
        "newer major version" to bad("schema_version", "\"2.0\"", "this version reads 1.x: update"),
        "older major version" to bad("schema_version", "\"0.9\"", "has schema version '0.9'"),
        "version of many digits" to bad("schema_version", "\"${"9".repeat(500)}.0\"", "has schema version"),
        "version no number" to bad("schema_version", "\"one\"", "at schema_version"),
        "version no text" to bad("schema_version", "1.0", "at schema_version"),
        "no version" to bad("schema_version", null, "at its top level: 'schema_version' is missing"),
        // the model
        "no model" to bad("model", null, "'model' is missing"),
        "unknown task" to bad("model/task", "\"caption\"", "at model/task: got 'caption'; valid: classify or detect"),
        "another task" to bad("model/task", "\"segment\"", "contradicts itself"),
        "too few labels" to bad("model/labels/0", null, "2 labels for 3 classes"),
        "another number of classes" to bad("model/num_classes", "81", "3 labels for 81 classes", Task.DETECT),
        "no labels" to bad("model/labels", "[]", "at model/labels"),
        "too many labels" to bad("model/labels", List(65_537) { "\"a\"" }.toString(), "got 65537 labels"),
        "label no text" to bad("model/labels/1", "7", "at model/labels/1: got 7; valid: a text"),
        "empty label" to bad("model/labels/1", "\"\"", "at model/labels/1"),
        "blank label" to bad("model/labels/1", "\"  \"", "at model/labels/1"),
        "label of two lines" to bad("model/labels/1", "\"a\\nb\"", "model/labels/1: got 'a\uFFFDb'; a label is one"),
        "label that moves the cursor" to bad("model/labels/1", "\"\\u001b[2J\"", "at model/labels/1"),
        "label that turns the text" to bad("model/labels/1", "\"a\\u202eb\"", "at model/labels/1"),
        "label with half a letter" to bad("model/labels/1", "\"\\ud800\"", "at model/labels/1"),
        "unknown weights" to bad("model/weights/source", "\"found\"", "at model/weights/source"),
        "parameters of none" to bad("model/parameters", "0", "at model/parameters"),
        "seed no integer" to bad("model/weights/seed", "0.5", "at model/weights/seed"),
        "part null" to bad("model/weights/part", "null", "at model/weights/part: got null"),
        // input and outputs
        "input size off the grid" to bad("input/shape/1", "100", "at input/shape/1"),
        "input size of zero" to bad("input/shape/1", "0", "at input/shape/1"),
        "input size too large" to bad("input/shape/2", "4160", "at input/shape/2"),
        "input size no integer" to bad("input/shape/1", "64.0", "at input/shape/1: got 64.0; valid: an integer"),
        "input size in quotes" to bad("input/shape/1", "\"64\"", "at input/shape/1: got '64'; valid: an integer"),
        "input size as a power" to bad("input/shape/1", "64e0", "at input/shape/1"),
        "input size beyond 32 bits" to bad("input/shape/1", "4294967360", "at input/shape/1"),
        "input of two images" to bad("input/shape/0", "2", "at input/shape/0"),
        "input of four channels" to bad("input/shape/3", "4", "at input/shape/3"),
        "input of rank 3" to bad("input/shape/0", null, "at input/shape: got rank 3"),
        "input in BGR" to bad("input/color", "\"BGR\"", "at input/color"),
        "input of floats" to bad("input/dtype", "\"float32\"", "at input/dtype"),
        "input channels first" to bad("input/layout", "\"NCHW\"", "at input/layout"),
        "input not normalized" to bad("input/normalization/in_graph", "false", "at input/normalization/in_graph"),
        "mean of two" to bad("input/normalization/mean/0", null, "at input/normalization/mean"),
        "unknown rule" to bad("input/resize/rule", "\"stretch\"", "at input/resize/rule"),
        "unknown resampling" to bad("input/resize/resampling", "\"nearest\"", "at input/resize/resampling"),
        "class map of a letterbox" to bad(
            "input/resize/rule",
            "\"letterbox\"",
            "class maps are for the rule 'resize', not 'letterbox'",
            Task.SEGMENT,
        ),
        "no outputs" to bad("outputs", "[]", "at outputs"),
        "output of another name" to bad("outputs/0/name", "\"scores\"", "no output logits of rank 2"),
        "output of another rank" to bad("outputs/0/shape", "[1, 3]", "no output logits of rank 4", Task.SEGMENT),
        "output of other classes" to bad("outputs/0/shape/1", "4", "no output logits of rank 4", Task.SEGMENT),
        "output for two images" to bad("outputs/0/shape/0", "2", "an output is for more than one image"),
        "output whose size overflows" to bad(
            "outputs/0/shape",
            "[1, 3, 2147483647, 2147483647]",
            "takes more memory than a phone has",
            Task.SEGMENT,
        ),
        "output whose size is zero in 32 bits" to bad(
            "outputs/0/shape",
            "[1, 3, 1073741824, 4]",
            "takes more memory than a phone has",
            Task.SEGMENT,
        ),
        "output of more than 256 MiB" to bad(
            "outputs/0/shape",
            "[1, 3, 4730, 4730]",
            "takes more memory than a phone has",
            Task.SEGMENT,
        ),
        "output in halves" to bad("outputs/0/dtype", "\"float16\"", "at outputs/0/dtype"),
        "detector's output missing" to bad("outputs/1", null, "no output stride16", Task.DETECT),
        "detector's output of other channels" to bad("outputs/1/shape/1", "25", "no output stride16", Task.DETECT),
        "meaning no text" to bad("outputs/0/meaning", "3", "at outputs/0/meaning"),
        // postprocessing
        "no postprocess" to bad("postprocess", null, "'postprocess' is missing"),
        "no top_k" to bad("postprocess/top_k", null, "its postprocess lacks top_k"),
        "top_k of zero" to bad("postprocess/top_k", "0", "at postprocess/top_k"),
        "top_k no integer" to bad("postprocess/top_k", "5.0", "at postprocess/top_k"),
        "no palette" to bad("postprocess/palette", null, "its postprocess lacks palette", Task.SEGMENT),
        "too few colors" to bad("postprocess/palette/0", null, "2 colors for 3 classes", Task.SEGMENT),
        "color out of range" to bad("postprocess/palette/0/0", "256", "at postprocess/palette/0", Task.SEGMENT),
        "color of two" to bad("postprocess/palette/0/0", null, "at postprocess/palette/0", Task.SEGMENT),
        "no anchors" to bad("postprocess/anchors", null, "lacks anchors", Task.DETECT),
        "no strides" to bad("postprocess/strides", null, "lacks strides", Task.DETECT),
        "no score threshold" to bad("postprocess/score_threshold", null, "lacks score_threshold", Task.DETECT),
        "no IoU threshold" to bad("postprocess/iou_threshold", null, "lacks iou_threshold", Task.DETECT),
        "no limit" to bad("postprocess/max_detections", null, "lacks max_detections", Task.DETECT),
        "two scales of anchors" to bad("postprocess/anchors/0", null, "3 strides for 2 scales of anchors", Task.DETECT),
        "two anchors at a scale" to bad("postprocess/anchors/0/0", null, "no output stride8 of 2 anchors", Task.DETECT),
        "no anchors at a scale" to bad("postprocess/anchors/0", "[]", "at postprocess/anchors/0", Task.DETECT),
        "anchor of three" to bad("postprocess/anchors/0/0", "[1, 2, 3]", "at postprocess/anchors/0/0", Task.DETECT),
        "anchor of zero" to bad("postprocess/anchors/0/0/0", "0", "at postprocess/anchors/0/0", Task.DETECT),
        "huge anchor" to bad("postprocess/anchors/0/0/0", "1e31", "at postprocess/anchors/0/0/0", Task.DETECT),
        "anchor of many digits" to bad("postprocess/anchors/0/0/0", "1" + "0".repeat(400), "0/0/0", Task.DETECT),
        "strides of no output" to bad("postprocess/strides", "[8, 16, 64]", "no output stride64", Task.DETECT),
        "stride no integer" to bad("postprocess/strides", "[8.0, 16, 32]", "at postprocess/strides/0", Task.DETECT),
        "threshold above one" to bad("postprocess/score_threshold", "1.5", "postprocess/score_threshold", Task.DETECT),
        "threshold below zero" to bad("postprocess/iou_threshold", "-0.1", "postprocess/iou_threshold", Task.DETECT),
        "infinite threshold" to bad("postprocess/iou_threshold", "1e999", "postprocess/iou_threshold", Task.DETECT),
        "threshold not a number" to bad("postprocess/iou_threshold", "NaN", "is not JSON", Task.DETECT),
        "limit beyond 32 bits" to bad("postprocess/max_detections", "2147483648", "got 2147483648", Task.DETECT),
        // the rest
        "unknown precision" to bad("precision", "\"fp8\"", "at precision: got 'fp8'; valid: fp32 or fp16 or int8"),
        "unknown format" to bad("artifacts/0/format", "\"keras\"", "at artifacts/0/format"),
        "a format twice" to bad("artifacts/1/format", "\"onnx\"", "two artifacts have one format"),
        "no artifacts" to bad("artifacts", "[]", "at artifacts"),
        "artifact of no bytes" to bad("artifacts/0/size_bytes", "0", "at artifacts/0/size_bytes"),
        "requires no object" to bad("artifacts/0/requires", "[]", "at artifacts/0/requires"),
        "tool without a version" to bad("artifacts/0/tools/onnx", "1", "at artifacts/0/tools/onnx"),
        "parity of no pictures" to bad("parity/onnx/images", "0", "at parity/onnx/images"),
        "parity as a text" to bad("parity/onnx/passed", "\"true\"", "at parity/onnx/passed"),
        "share above one" to bad("parity/onnx/agreement/share", "1.01", "at parity/onnx/agreement/share"),
        "tolerance null" to bad("parity/onnx/tolerance/agreement", "null", "at parity/onnx/tolerance/agreement"),
        "figure no number" to bad("parity/onnx/outputs/logits/cosine", "\"1\"", "at parity/onnx/outputs/logits/cosine"),
        "golden no list" to bad("golden", "{}", "at golden: got an object; valid: a list"),
        "report null" to bad("report", "null", "at report: got null"),
        "quantization without ops" to bad("artifacts/0/quantization/ops", null, "'ops' is missing", Task.SEGMENT),
        "share of int8 above one" to bad("artifacts/0/quantization/macs/share", "2", "macs/share", Task.SEGMENT),
        "unknown target" to bad("artifacts/0/quantization/target", "\"mips\"", "quantization/target", Task.SEGMENT),
        "size ratio of zero" to bad("artifacts/0/quantization/size_ratio", "0", "size_ratio", Task.SEGMENT),
        "island of no ops" to bad("artifacts/0/quantization/float_islands/0/ops", "0", "islands/0/ops", Task.SEGMENT),
        "calibration of no pictures" to bad("calibration/pictures", "0", "at calibration/pictures", Task.SEGMENT),
        "try without a recipe" to bad("auto/tried/0/recipe", null, "auto/tried/0: 'recipe' is missing", Task.SEGMENT),
        "drop below zero" to bad("auto/max_drop", "-1", "at auto/max_drop", Task.SEGMENT),
    )

    @TestFactory
    fun `a bad manifest is refused`(): List<DynamicTest> = badManifests.map { (name, bad) ->
        dynamicTest(name) {
            val text = edited(manifestOf(bad.task), bad.path, bad.value)
            val message = refusal<BundleException> { parse(text) }
            assertTrue(message.startsWith("manifest.json "), message)
            assertContains(message, bad.problem)
        }
    }

    @Test
    fun `outputs of one name are refused`() {
        val manifest = manifestOf(Task.CLASSIFY)
        val twice = JsonArray(manifest.list("outputs") + manifest.list("outputs"))
        val message = refusal<BundleException> { parse(manifest.with("outputs", twice).toString()) }
        assertContains(message, "two outputs have one name")
    }

    @Test
    fun `outputs that are large together are refused`() {
        val other = """{"name": "other", "shape": [1, 8192, 8192], "dtype": "float32", "meaning": ""}"""
        val manifest = manifestOf(Task.CLASSIFY)
        val both = JsonArray(manifest.list("outputs") + Json.parseToJsonElement(other))
        val message = refusal<BundleException> { parse(manifest.with("outputs", both).toString()) }
        assertContains(message, "output 'other' of [1, 8192, 8192] takes more memory")
    }

    private val badTexts = mapOf(
        "empty" to ("" to "is not JSON"),
        "no JSON" to ("{" to "is not JSON"),
        "a list" to ("[]" to "at its top level: got a list; valid: an object"),
        "a number" to ("1" to "at its top level: got 1; valid: an object"),
        "null" to ("null" to "at its top level: got null; valid: an object"),
        "too deep" to ("[".repeat(100_000) to "is not JSON: it is nested more than 64 deep"),
        "a name twice" to ("""{"schema_version": "1.0", "schema_version": "1.0"}""" to "stands twice"),
        "NaN in a field that is ignored" to ("""{"schema_version": "1.0", "later": NaN}""" to "is not JSON"),
    )

    @TestFactory
    fun `a bad text is refused`(): List<DynamicTest> = badTexts.map { (name, bad) ->
        dynamicTest(name) { assertContains(refusal<BundleException> { parse(bad.first) }, bad.second) }
    }

    @Test
    fun `a field that is ignored may not be nested too deeply either`() {
        val deep = "[".repeat(100_000) + "]".repeat(100_000)
        assertContains(refusal<BundleException> { parse(edited(manifestOf(Task.CLASSIFY), "later", deep)) }, "nested")
    }

    @Test
    fun `a huge text is refused`() {
        val message = refusal<BundleException> { Manifest.parse(ByteArray(Manifest.MAX_BYTES + 1), "manifest.json") }
        assertEquals("manifest.json has more than 16777216 bytes; a manifest is smaller", message)
    }

    @Test
    fun `names of a stranger make no long message`() {
        val name = "x\\n".repeat(1000)
        val message = refusal<BundleException> {
            parse(edited(manifestOf(Task.CLASSIFY), "parity", """{"$name": {"engine": 1}}"""))
        }
        assertTrue(message.length < 300)
    }

    // ---- drawn manifests ------------------------------------------------------------------------------------

    @ParameterizedTest
    @EnumSource
    fun `bytes changed at random are a manifest or refused`(task: Task) {
        val content = manifestOf(task).toString().encodeToByteArray()
        forSeeds(1000) { random ->
            takeOrRefuse(mutated(content, random))
        }
    }

    /**
     * Values exchanged, taken away or put twice at random: what is taken follows the schema; what follows the schema is
     * taken, unless it contradicts itself or is beyond what the schema has words for.
     */
    @ParameterizedTest
    @EnumSource
    fun `a manifest is taken where the schema takes it`(task: Task) {
        val original = manifestOf(task)
        var taken = 0
        forSeeds(500) { random ->
            val text = mutated(original, random).toString()
            val problems = schema.validate(text, InputFormat.JSON)
            val refusal = takeOrRefuse(text.encodeToByteArray())
            if (refusal == null) {
                taken++
                assertTrue(problems.isEmpty(), "taken, but the schema has: $problems")
            } else if (problems.isEmpty()) {
                assertTrue(BEYOND_THE_SCHEMA.any { it in refusal }, "refused, but the schema takes it: $refusal")
            }
        }
        assertTrue(taken > 25, "only $taken were taken: the test says little")
    }

    /** The message, or null where it is a manifest. */
    private fun takeOrRefuse(content: ByteArray): String? = try {
        Manifest.parse(content, "manifest.json")
        null
    } catch (error: BundleException) {
        error.message
    }

    private fun mutated(element: JsonElement, random: Random): JsonElement {
        val places = places(element)
        val place = places[random.nextInt(places.size)]
        val old = element.at(place)
        return when (random.nextInt(4)) {
            0 -> element.with(place, null)
            1 -> element.with(place, Json.parseToJsonElement(VALUES.random(random)))
            2 -> element.with(place, element.at(places[random.nextInt(places.size)]))
            else -> when (old) {
                is JsonArray -> element.with(place, JsonArray(old + old))
                is JsonPrimitive -> element.with(place, nudged(old, random))
                else -> element.with("$place/later", JsonPrimitive(1))
            }
        }
    }

    private fun nudged(old: JsonPrimitive, random: Random): JsonPrimitive {
        if (old.isString) return JsonPrimitive(old.content + "abc/.x".random(random))
        val number = old.content.toDoubleOrNull() ?: return JsonPrimitive("true")
        return JsonPrimitive(number.toLong() + random.nextLong(-2, 3))
    }

    private fun places(element: JsonElement): List<String> = when (element) {
        is JsonObject -> element.flatMap { (name, child) -> listOf(name) + places(child).map { "$name/$it" } }
        is JsonArray -> element.flatMapIndexed { i, child -> listOf("$i") + places(child).map { "$i/$it" } }
        else -> emptyList()
    }

    private companion object {
        /** The refusals that have no word in the schema: see documents.py and check_labels in the Python code. */
        val BEYOND_THE_SCHEMA = listOf(
            "contradicts itself",
            "a label is one line",
            "an integer of 32 bits",
            "an integer of 64 bits",
            "at most 1.0E30",
            "labels; valid: 1 to 65536",
        )

        val VALUES = listOf(
            "null", "true", "false", "0", "1", "-1", "2", "3", "5.0", "0.5", "1e31", "4294967296", "\"\"", "\"x\"",
            "\"../x\"", "\"onnx\"", "\"1.9\"", "\"1\"", "[]", "{}", "[1, 2]", "[1, 2, 3]", "{\"a\": 1}", "[[]]",
        )

        /** The manifest with the JSON [value], which need not be JSON, at [path]. */
        fun edited(manifest: JsonObject, path: String, value: String?): String {
            if (value == null) return manifest.with(path, null).toString()
            return manifest.with(path, JsonPrimitive("@")).toString().replace("\"@\"", value)
        }
    }
}
