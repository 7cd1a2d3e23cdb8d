package xformer.mobile

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import javax.imageio.ImageIO
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.double
import kotlinx.serialization.json.float
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import xformer.mobile.core.Box
import xformer.mobile.core.Bundle
import xformer.mobile.core.Classification
import xformer.mobile.core.Classifications
import xformer.mobile.core.ClassMap
import xformer.mobile.core.Detection
import xformer.mobile.core.Detections
import xformer.mobile.core.Format
import xformer.mobile.core.Outputs
import xformer.mobile.core.PictureDecoder
import xformer.mobile.core.Prediction
import xformer.mobile.core.RgbImage
import xformer.mobile.core.Task
import xformer.mobile.core.Tensor

/** The PNG files of bundles and fixtures: 8 bits, RGB, without a profile. */
internal val pngs = PictureDecoder { content ->
    val image = checkNotNull(ImageIO.read(content.inputStream())) { "not a picture" }
    val argb = image.getRGB(0, 0, image.width, image.height, null, 0, image.width)
    val bytes = ByteArray(3 * argb.size)
    for (i in argb.indices) {
        bytes[3 * i] = (argb[i] shr 16).toByte()
        bytes[3 * i + 1] = (argb[i] shr 8).toByte()
        bytes[3 * i + 2] = argb[i].toByte()
    }
    RgbImage(image.width, image.height, bytes)
}

/** What scripts/app_fixtures.py made: a bundle, pictures, and what Python makes of them. */
internal class Fixtures(bundles: File, name: String) {
    val bundle: Bundle = Bundle.open(File(bundles, name))

    private val directory = File(bundles, "../expected/$name")
    private val document = Json.parseToJsonElement(File(directory, "expected.json").readText()).jsonObject

    /** Versions of Python's engines by name. */
    val tools: Map<String, String> =
        document.getValue("tools").jsonObject.mapValues { it.value.jsonPrimitive.content }

    /** Of Python's engines. */
    val threads: Int = document.number("threads")

    /** Of the processor that Python ran on, as Java calls it. */
    val architecture: String =
        document.getValue("architecture").jsonPrimitive.content.let { if (it == "x86_64") "amd64" else it }

    /** Picture by picture. */
    val cases: List<Case> = document.getValue("cases").jsonArray.map { Case(it.jsonObject) }

    /** A picture; what preprocessing makes of it, and what an engine of Python returns for that. */
    inner class Case(private val described: JsonObject) {
        private val picture = described.getValue("picture").jsonObject

        val name: String = picture.text("name")

        fun image(): RgbImage = pngs.decode(content(picture))

        fun input(): ByteArray = content(described.getValue("input").jsonObject)

        fun outputs(format: Format): Outputs = found(format).getValue("outputs").jsonObject.mapValues { (_, stored) ->
            val bytes = content(stored.jsonObject)
            val values = FloatArray(bytes.size / Float.SIZE_BYTES)
            ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values)
            Tensor(stored.jsonObject.ints("shape"), values)
        }

        fun result(format: Format): Prediction = when (bundle.task) {
            Task.CLASSIFY -> Classifications(found(format).getValue("result").jsonArray.map { classification(it) })
            Task.DETECT -> Detections(found(format).getValue("result").jsonArray.map { detection(it) })
            Task.SEGMENT -> classMap(found(format).getValue("class_map").jsonObject)
        }

        private fun found(format: Format) = described.getValue("formats").jsonObject.getValue(format.id).jsonObject
    }

    private fun classification(row: JsonElement) = row.jsonObject.run {
        Classification(number("index"), text("label"), getValue("probability").jsonPrimitive.double)
    }

    private fun detection(row: JsonElement) = row.jsonObject.run {
        val (x1, y1, x2, y2) = listOf("x1", "y1", "x2", "y2").map {
            getValue("box").jsonObject.getValue(it).jsonPrimitive.float
        }
        Detection(number("index"), text("label"), getValue("score").jsonPrimitive.float, Box(x1, y1, x2, y2))
    }

    private fun classMap(stored: JsonObject): ClassMap {
        val (height, width) = stored.ints("shape").toList()
        check(stored.text("type") == "u8")
        val bytes = content(stored)
        return ClassMap(width, height, ShortArray(bytes.size) { (bytes[it].toInt() and 0xFF).toShort() }, bundle.labels)
    }

    private fun content(stored: JsonObject): ByteArray {
        val content = File(directory, stored.text("file")).readBytes()
        check(sha256(content) == stored.text("sha256")) { "${stored.text("file")} is not what was made" }
        return content
    }

    companion object {
        /** The bundles that there have to be. */
        val NAMES = listOf("classify", "detect", "segment").flatMap { listOf("$it-fp32", "$it-int8") } +
            "classify-int8-weights"

        /** Where they are. */
        val bundles: File by lazy {
            File(checkNotNull(System.getProperty("xformer.bundles")) { "give -Dxformer.bundles=DIR" })
        }
    }
}

internal fun sha256(content: ByteArray): String =
    MessageDigest.getInstance("SHA-256").digest(content).joinToString("") { "%02x".format(it) }

private fun JsonObject.text(name: String): String = getValue(name).jsonPrimitive.content

private fun JsonObject.number(name: String): Int = getValue(name).jsonPrimitive.int

private fun JsonObject.ints(name: String): IntArray = getValue(name).jsonArray.map { it.jsonPrimitive.int }.toIntArray()
