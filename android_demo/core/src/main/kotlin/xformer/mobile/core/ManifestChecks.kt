package xformer.mobile.core

import kotlinx.serialization.descriptors.PrimitiveKind
import kotlinx.serialization.descriptors.SerialDescriptor
import kotlinx.serialization.descriptors.SerialKind
import kotlinx.serialization.descriptors.StructureKind
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull
import kotlin.math.abs

// The checks of a manifest in the order in which they are made. They are those of manifest.schema.json and of
// xformer_mobile/artifact.py, and limits that keep what a phone takes from a stranger within its memory.

/** A manifest can't be used; [message] goes on after the manifest's name. */
internal class ManifestException(message: String) : Exception(message)

internal fun checkVersion(document: JsonElement) {
    val version = ((document as? JsonObject)?.get("schema_version") as? JsonPrimitive)?.takeIf { it.isString } ?: return
    val major = version.content.substringBefore('.')
    if (major.isNotEmpty() && major.all { it in '0'..'9' } && major != "1") {
        throw ManifestException(
            "has schema version ${quote(version.content)}; this version reads 1.x: update the app, or export the " +
                "bundle with the xformer-mobile that the app is of",
        )
    }
}

// ---- types --------------------------------------------------------------------------------------------------

/** No number in a document is larger; it fits a float. */
private const val LARGEST_NUMBER = 1e30

/** Whether a document has the fields that a class has, of their types; [place] is where it stands. */
internal fun checkFits(type: SerialDescriptor, element: JsonElement, place: String = "") {
    if (type == anyJson || (element is JsonNull && type.isNullable)) return
    when (val kind = type.kind) {
        StructureKind.CLASS -> {
            val fields = element as? JsonObject ?: wrong(place, element, "an object")
            for (index in 0 until type.elementsCount) {
                val name = type.getElementName(index)
                val value = fields[name]
                if (value == null) {
                    if (!type.isElementOptional(index)) refuse(place, "${quote(name)} is missing")
                    continue
                }
                // In Kotlin, null stands for a field that is not there; in a manifest, no field is null.
                if (value is JsonNull) wrong(join(place, name), value, "a value")
                checkFits(type.getElementDescriptor(index), value, join(place, name))
            }
        }
        StructureKind.MAP -> {
            val fields = element as? JsonObject ?: wrong(place, element, "an object")
            for ((name, value) in fields) checkFits(type.getElementDescriptor(1), value, join(place, name))
        }
        StructureKind.LIST -> {
            val items = element as? JsonArray ?: wrong(place, element, "a list")
            val itemType = type.getElementDescriptor(0)
            items.forEachIndexed { index, value -> checkFits(itemType, value, join(place, "$index")) }
        }
        else -> checkPrimitive(type, kind, element, place)
    }
}

private val anyJson = JsonElement.serializer().descriptor

private fun checkPrimitive(type: SerialDescriptor, kind: SerialKind, element: JsonElement, place: String) {
    val primitive = element as? JsonPrimitive
    val literal = primitive?.takeUnless { it.isString }
    when (kind) {
        PrimitiveKind.STRING -> if (primitive == null || !primitive.isString) wrong(place, element, "a text")
        PrimitiveKind.BOOLEAN -> literal?.booleanOrNull ?: wrong(place, element, "true or false")
        PrimitiveKind.INT -> literal?.content?.toIntOrNull() ?: wrong(place, element, "an integer of 32 bits")
        PrimitiveKind.LONG -> literal?.content?.toLongOrNull() ?: wrong(place, element, "an integer of 64 bits")
        PrimitiveKind.DOUBLE -> {
            val number = literal?.content?.toDoubleOrNull() ?: wrong(place, element, "a number")
            if (!(abs(number) <= LARGEST_NUMBER)) wrong(place, element, "at most $LARGEST_NUMBER")
        }
        SerialKind.ENUM -> {
            val names = List(type.elementsCount, type::getElementName)
            if (primitive == null || !primitive.isString || primitive.content !in names) {
                wrong(place, element, names.joinToString(" or "))
            }
        }
        else -> error("no check for $kind")
    }
}

private fun wrong(place: String, element: JsonElement, valid: String): Nothing {
    val got = when (element) {
        is JsonObject -> "an object"
        is JsonArray -> "a list"
        is JsonPrimitive -> if (element.isString) quote(element.content) else element.content.take(60)
    }
    refuse(place, "got $got; valid: $valid")
}

private fun refuse(place: String, problem: String): Nothing =
    throw ManifestException("is not a manifest: at ${place.ifEmpty { "its top level" }}: $problem")

private fun join(place: String, name: String): String {
    val part = if (PLACE_PART.matches(name)) name else quote(name)
    return if (place.isEmpty()) part else "$place/$part"
}

private val PLACE_PART = Regex("[A-Za-z0-9_. -]{1,60}")

// ---- values -------------------------------------------------------------------------------------------------

private val SCHEMA_VERSION = Regex("1\\.[0-9]+")
private val SHA256 = Regex("[0-9a-f]{64}")
private val PATH = Regex("[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
private const val MAX_PATH_LENGTH = 255
private val PRECISIONS = listOf("fp32", "fp16", "int8", "int8-weights")
private val TARGETS = listOf("arm", "x86")

/** What the 16 bits of a class map can tell apart. */
private const val MAX_CLASSES = 1 shl 16

/** All outputs together: 256 MiB, as much as a phone gives an app. */
private const val MAX_OUTPUT_VALUES = 1L shl 26

/** Whether a path stays below the bundle's directory, by its letters: relative, no "..", no hidden part. */
internal fun isPath(path: String): Boolean = path.length <= MAX_PATH_LENGTH && PATH.matches(path)

/** What the schema says of values. */
internal fun checkSchema(manifest: Manifest) {
    ensure("schema_version", SCHEMA_VERSION.matches(manifest.schemaVersion)) { quote(manifest.schemaVersion) }
    checkModel(manifest.model)
    checkInput(manifest.input)
    checkNotEmpty("outputs", manifest.outputs)
    manifest.outputs.forEachIndexed { index, output ->
        val place = "outputs/$index"
        checkNotEmpty("$place/name", output.name)
        ensure("$place/shape", output.shape.size in 2..4) { "rank ${output.shape.size}; valid: 2 to 4" }
        output.shape.forEachIndexed { axis, side -> checkAtLeast("$place/shape/$axis", side, 1) }
        checkOneOf("$place/dtype", output.dtype, listOf("float32"))
    }
    checkPostprocess(manifest.postprocess)
    checkOneOf("precision", manifest.precision, PRECISIONS)
    checkNotEmpty("artifacts", manifest.artifacts)
    manifest.artifacts.forEachIndexed { index, artifact -> checkArtifact("artifacts/$index", artifact) }
    manifest.golden.forEachIndexed { index, golden ->
        checkFile("golden/$index/input", golden.input)
        for ((name, file) in golden.outputs) checkFile(join("golden/$index/outputs", name), file)
    }
    for ((format, parity) in manifest.parity) {
        checkAtLeast(join("parity", format) + "/images", parity.images, 1)
        checkShare(join("parity", format) + "/agreement/share", parity.agreement.share)
    }
    manifest.report?.let { checkFile("report", it) }
    manifest.calibration?.let(::checkCalibration)
    manifest.auto?.let(::checkAuto)
}

private fun checkModel(model: Manifest.Model) {
    checkNotEmpty("model/variant", model.variant)
    checkAtLeast("model/num_classes", model.numClasses, 1)
    ensure("model/labels", model.labels.size in 1..MAX_CLASSES) {
        "${model.labels.size} labels; valid: 1 to $MAX_CLASSES"
    }
    model.labels.forEachIndexed { index, label ->
        ensure("model/labels/$index", isLabel(label)) { "${quote(label)}; a label is one line of printable text" }
    }
    checkAtLeast("model/parameters", model.parameters, 1)
    checkAtLeast("model/macs", model.macs, 1)
    checkSha256("model/weights/sha256", model.weights.sha256)
}

private fun isLabel(label: String): Boolean {
    var at = 0
    var isBlank = true
    while (at < label.length) {
        val letter = label.codePointAt(at)
        if (letter != ' '.code) {
            isBlank = false
            // A letter that this phone's Unicode is too old for is let through.
            if (Character.getType(letter).toByte() in UNPRINTABLE) return false
        }
        at += Character.charCount(letter)
    }
    return !isBlank
}

private val UNPRINTABLE = setOf(
    Character.CONTROL,
    Character.FORMAT,
    Character.SURROGATE,
    Character.PRIVATE_USE,
    Character.LINE_SEPARATOR,
    Character.PARAGRAPH_SEPARATOR,
    Character.SPACE_SEPARATOR,
)

private fun checkInput(input: Manifest.Input) {
    checkNotEmpty("input/name", input.name)
    ensure("input/shape", input.shape.size == 4) { "rank ${input.shape.size}; valid: 4" }
    ensure("input/shape/0", input.shape[0] == 1) { "${input.shape[0]}; valid: 1" }
    for (axis in 1..2) {
        ensure("input/shape/$axis", ImageSize.isSide(input.shape[axis])) {
            "${input.shape[axis]}; valid: multiples of ${ImageSize.STRIDE} up to ${ImageSize.MAX_SIDE}"
        }
    }
    ensure("input/shape/3", input.shape[3] == 3) { "${input.shape[3]}; valid: 3" }
    checkOneOf("input/dtype", input.dtype, listOf("uint8"))
    checkOneOf("input/layout", input.layout, listOf("NHWC"))
    checkOneOf("input/color", input.color, listOf("RGB"))
    checkOneOf("input/resize/resampling", input.resize.resampling, listOf("pillow_bilinear_antialiased"))
    input.resize.padColor?.let { checkColor("input/resize/pad_color", it) }
    input.resize.coverRatio?.let { ratio ->
        ensure("input/resize/cover_ratio", ratio.size == 2 && ratio.all { it >= 1 }) { "$ratio; valid: two from 1 on" }
    }
    ensure("input/normalization/in_graph", input.normalization.inGraph) { "false; valid: true" }
    ensure("input/normalization/mean", input.normalization.mean.size == 3) { "another number of values; valid: three" }
    ensure("input/normalization/std", input.normalization.std.size == 3) { "another number of values; valid: three" }
}

private fun checkPostprocess(postprocess: Manifest.Postprocess) {
    val place = "postprocess"
    postprocess.topK?.let { checkAtLeast("$place/top_k", it, 1) }
    postprocess.anchors?.forEachIndexed { scale, anchors ->
        checkNotEmpty("$place/anchors/$scale", anchors)
        anchors.forEachIndexed { index, anchor ->
            ensure("$place/anchors/$scale/$index", anchor.size == 2 && anchor.all { it > 0 }) {
                "$anchor; valid: width and height, above 0"
            }
        }
    }
    postprocess.strides?.forEachIndexed { index, stride -> checkAtLeast("$place/strides/$index", stride, 1) }
    postprocess.scoreThreshold?.let { checkShare("$place/score_threshold", it) }
    postprocess.iouThreshold?.let { checkShare("$place/iou_threshold", it) }
    postprocess.maxDetections?.let { checkAtLeast("$place/max_detections", it, 1) }
    postprocess.palette?.forEachIndexed { index, color -> checkColor("$place/palette/$index", color) }
}

private fun checkArtifact(place: String, artifact: Manifest.Artifact) {
    ensure("$place/file", isPath(artifact.file)) { "${quote(artifact.file)}; valid: a path below the bundle" }
    checkSha256("$place/sha256", artifact.sha256)
    checkAtLeast("$place/size_bytes", artifact.sizeBytes, 1)
    val quantization = artifact.quantization ?: return
    val inside = "$place/quantization"
    checkAtLeast("$inside/fp32_size_bytes", quantization.fp32SizeBytes, 1)
    ensure("$inside/size_ratio", quantization.sizeRatio > 0) { "${quantization.sizeRatio}; valid: above 0" }
    quantization.target?.let { checkOneOf("$inside/target", it, TARGETS) }
    val shares = mapOf(
        "macs" to quantization.macs,
        "ops" to quantization.ops,
        "moved_bytes" to quantization.movedBytes,
        "weights" to quantization.weights,
    )
    for ((name, share) in shares) {
        checkAtLeast("$inside/$name/int8", share.int8, 0)
        checkAtLeast("$inside/$name/all", share.all, 0)
        checkShare("$inside/$name/share", share.share)
    }
    checkAtLeast("$inside/qdq_pairs", quantization.qdqPairs, 0)
    checkAtLeast("$inside/float_island_count", quantization.floatIslandCount, 0)
    quantization.floatIslands.forEachIndexed { index, island ->
        checkAtLeast("$inside/float_islands/$index/ops", island.ops, 1)
        checkAtLeast("$inside/float_islands/$index/macs", island.macs, 0)
        for ((kind, count) in island.kinds) {
            checkAtLeast(join("$inside/float_islands/$index/kinds", kind), count, 1)
        }
    }
}

private fun checkCalibration(calibration: Manifest.Calibration) {
    checkNotEmpty("calibration/source", calibration.source)
    checkAtLeast("calibration/pictures", calibration.pictures, 1)
    checkAtLeast("calibration/seed", calibration.seed, 0)
    checkAtLeast("calibration/skipped", calibration.skipped, 0)
}

private fun checkAuto(auto: Manifest.Auto) {
    ensure("auto/max_drop", auto.maxDrop >= 0) { "${auto.maxDrop}; valid: from 0 on" }
    checkAtLeast("auto/pictures", auto.pictures, 1)
    auto.floatParts.forEachIndexed { index, part ->
        checkAtLeast("auto/float_parts/$index/macs", part.macs, 0)
        ensure("auto/float_parts/$index/noise", part.noise >= 0) { "${part.noise}; valid: from 0 on" }
    }
    auto.tried.forEachIndexed { index, tried ->
        if ("recipe" !in tried) refuse("auto/tried/$index", "'recipe' is missing")
    }
}

private fun checkFile(place: String, entry: Manifest.FileEntry) {
    ensure("$place/file", isPath(entry.file)) { "${quote(entry.file)}; valid: a path below the bundle" }
    checkSha256("$place/sha256", entry.sha256)
}

private fun checkSha256(place: String, sha256: String) =
    ensure(place, SHA256.matches(sha256)) { "${quote(sha256)}; valid: 64 digits of 0-9 and a-f" }

private fun checkColor(place: String, color: List<Int>) =
    ensure(place, color.size == 3 && color.all { it in 0..255 }) { "$color; valid: three from 0 to 255" }

private fun checkShare(place: String, share: Double) = ensure(place, share in 0.0..1.0) { "$share; valid: 0 to 1" }

private fun checkAtLeast(place: String, number: Int, least: Int) = checkAtLeast(place, number.toLong(), least.toLong())

private fun checkAtLeast(place: String, number: Long, least: Long) =
    ensure(place, number >= least) { "$number; valid: from $least on" }

private fun checkNotEmpty(place: String, text: String) =
    ensure(place, text.isNotEmpty()) { "an empty text; valid: one letter or more" }

private fun checkNotEmpty(place: String, list: List<*>) =
    ensure(place, list.isNotEmpty()) { "an empty list; valid: one or more" }

private fun checkOneOf(place: String, text: String, valid: List<String>) =
    ensure(place, text in valid) { "${quote(text)}; valid: ${valid.joinToString(" or ")}" }

private inline fun ensure(place: String, holds: Boolean, problem: () -> String) {
    if (!holds) refuse(place, "got ${problem()}")
}

// ---- agreement ----------------------------------------------------------------------------------------------

/** What the schema can't say: the parts agree with each other. */
internal fun checkConsistency(manifest: Manifest) {
    val model = manifest.model
    val classes = model.numClasses
    val outputs = manifest.outputs.associate { it.name to it.shape }
    agree(model.labels.size == classes) { "${model.labels.size} labels for $classes classes" }
    agree(outputs.size == manifest.outputs.size) { "two outputs have one name" }
    agree(outputs.values.all { it[0] == 1 }) { "an output is for more than one image" }
    var room = MAX_OUTPUT_VALUES
    for ((name, shape) in outputs) {
        val values = volume(shape.toIntArray())
        agree(values <= room) { "output ${quote(name)} of $shape takes more memory than a phone has" }
        room -= values
    }
    val formats = manifest.artifacts.map { it.format }.distinct()
    agree(formats.size == manifest.artifacts.size) { "two artifacts have one format" }
    val rule = manifest.input.resize.rule
    agree(model.task != Task.SEGMENT || rule == ResizeRule.RESIZE) {
        "class maps are for the rule 'resize', not '${rule.id}'"
    }
    when (model.task) {
        Task.CLASSIFY -> {
            agreeOnLogits(outputs, 2, classes)
            agree(manifest.postprocess.topK != null) { "its postprocess lacks top_k" }
        }
        Task.DETECT -> agreeOnBoxes(manifest.postprocess, outputs, classes)
        Task.SEGMENT -> {
            agreeOnLogits(outputs, 4, classes)
            val palette = manifest.postprocess.palette
            agree(palette != null) { "its postprocess lacks palette" }
            agree(palette?.size == classes) { "${palette?.size} colors for $classes classes" }
        }
    }
}

private fun agreeOnLogits(outputs: Map<String, List<Int>>, rank: Int, classes: Int) {
    val shape = outputs[LOGITS]
    agree(shape?.size == rank && shape[1] == classes) { "no output $LOGITS of rank $rank and $classes classes" }
}

private fun agreeOnBoxes(postprocess: Manifest.Postprocess, outputs: Map<String, List<Int>>, classes: Int) {
    val needed = mapOf(
        "anchors" to postprocess.anchors,
        "iou_threshold" to postprocess.iouThreshold,
        "max_detections" to postprocess.maxDetections,
        "score_threshold" to postprocess.scoreThreshold,
        "strides" to postprocess.strides,
    )
    val missing = needed.filterValues { it == null }.keys
    agree(missing.isEmpty()) { "a detector's postprocess lacks ${missing.joinToString()}" }
    val strides = postprocess.strides.orEmpty()
    val anchors = postprocess.anchors.orEmpty()
    agree(strides.size == anchors.size && strides.isNotEmpty()) {
        "${strides.size} strides for ${anchors.size} scales of anchors"
    }
    for ((stride, scale) in strides.zip(anchors)) {
        val shape = outputs["stride$stride"]
        agree(shape?.size == 4 && shape[1].toLong() == scale.size * (5L + classes)) {
            "no output stride$stride of ${scale.size} anchors times 5 + $classes channels"
        }
    }
}

private inline fun agree(holds: Boolean, problem: () -> String) {
    if (!holds) throw ManifestException("contradicts itself: ${problem()}")
}
