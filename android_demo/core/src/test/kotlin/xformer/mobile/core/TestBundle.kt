package xformer.mobile.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** A manifest of an export, cut down to three classes: its files are those that [writeBundle] makes. */
fun manifestOf(task: Task): JsonObject = Golden("manifests").document("${task.id}.json")

/** The tree with another value at a path such as "model/labels/0"; null takes what is there away. */
fun JsonElement.with(path: String, value: JsonElement?): JsonElement {
    val name = path.substringBefore('/')
    val rest = path.substringAfter('/', missingDelimiterValue = "")
    fun changed(child: JsonElement) = if (rest.isEmpty()) value else child.with(rest, value)
    return when (this) {
        is JsonArray -> JsonArray(mapIndexedNotNull { i, child -> if ("$i" == name) changed(child) else child })
        is JsonObject -> {
            val child = changed(get(name) ?: JsonObject(emptyMap()))
            JsonObject(if (child == null) this - name else this + (name to child))
        }
        else -> error("nothing at $path")
    }
}

fun JsonElement.at(path: String): JsonElement = path.split('/').fold(this) { element, name ->
    if (element is JsonArray) element[name.toInt()] else element.jsonObject.getValue(name)
}

/** The golden inputs of test bundles are bare bytes, whatever their names say. */
val rawDecoder = PictureDecoder { RgbImage(64, 64, it) }

/** What a test bundle's files hold, by their path: artifacts, golden inputs and outputs, a report. */
class TestBundle(manifest: JsonObject) {
    val files = LinkedHashMap<String, ByteArray>()

    val manifest: JsonObject

    init {
        var changed: JsonElement = manifest
        val drawn = Drawn(1)
        manifest.list("artifacts").forEachIndexed { i, entry ->
            val name = entry.jsonObject.text("file")
            if (entry.jsonObject.text("format") == "coreml") {
                files["$name/Manifest.json"] = "{}".encodeToByteArray()
                files["$name/Data/model.mlmodel"] = bytes(drawn, 40)
                files["$name/Data/model-weights.bin"] = bytes(drawn, 50)
                changed = changed.with("artifacts/$i/sha256", JsonPrimitive(lines(name)))
            } else {
                files[name] = bytes(drawn, 300)
                changed = changed.with("artifacts/$i/sha256", JsonPrimitive(sha256(files.getValue(name))))
            }
        }
        val outputs = manifest.list("outputs").map { it.jsonObject }
        val shapes = outputs.associate { it.text("name") to it.getValue("shape") }
        manifest.list("golden").forEachIndexed { i, case ->
            changed = stored(changed, "golden/$i/input", bytes(drawn, 3 * 64 * 64))
            for (name in case.jsonObject.getValue("outputs").jsonObject.keys) {
                val values = drawn.floats(volume(shapes.getValue(name).ints()).toInt())
                changed = stored(changed, "golden/$i/outputs/$name", littleEndian(values))
            }
        }
        changed = stored(changed, "report", "{}".encodeToByteArray())
        this.manifest = changed.jsonObject
    }

    /** The same with another file content, and its sha256 in the manifest. */
    fun stored(manifest: JsonElement, place: String, content: ByteArray): JsonElement {
        files[manifest.at("$place/file").jsonPrimitive.content] = content
        return manifest.with("$place/sha256", JsonPrimitive(sha256(content)))
    }

    /** What sha256sum would print for a directory, as xformer_mobile/files.py has it. */
    private fun lines(directory: String): String {
        val names = files.keys.filter { it.startsWith("$directory/") }.sorted()
        val lines = names.map { "${sha256(files.getValue(it))}  ${it.removePrefix("$directory/")}\n" }
        return sha256(lines.joinToString("").encodeToByteArray())
    }

    private fun bytes(drawn: Drawn, count: Int) = ByteArray(count) { drawn.next().toByte() }

    /** Every file by its path, the manifest too. */
    fun all(): Map<String, ByteArray> = files + (Manifest.FILE to manifest.toString().encodeToByteArray())

    fun write(directory: File): File {
        for ((name, content) in all()) File(directory, name).apply { parentFile.mkdirs() }.writeBytes(content)
        return directory
    }
}

fun littleEndian(values: FloatArray): ByteArray {
    val buffer = ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN)
    values.forEach(buffer::putFloat)
    return buffer.array()
}

/** Writes a bundle of a task; [change] is made to its manifest last. */
fun writeBundle(directory: File, task: Task, change: (JsonElement) -> JsonElement = { it }): File {
    val bundle = TestBundle(manifestOf(task))
    bundle.write(directory)
    File(directory, Manifest.FILE).writeText(change(bundle.manifest).toString())
    return directory
}
