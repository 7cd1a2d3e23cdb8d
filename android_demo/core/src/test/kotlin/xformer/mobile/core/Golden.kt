package xformer.mobile.core

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.DynamicTest
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** A folder of tests/golden, which the Python and Swift code read too. */
class Golden(folder: String) {
    val directory = File(System.getProperty("xformer.golden"), folder)

    fun document(name: String): JsonObject = Json.parseToJsonElement(File(directory, name).readText()).jsonObject

    fun bytes(name: String): ByteArray = File(directory, name).readBytes()

    fun floats(name: String): FloatArray {
        val buffer = ByteBuffer.wrap(bytes(name)).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatArray(buffer.remaining()).also(buffer::get)
    }
}

/** One test for each case of a golden document; [name] says what is in a case. */
fun JsonObject.tests(name: (JsonObject) -> String, test: (JsonObject) -> Unit): List<DynamicTest> =
    list("cases").map { case -> DynamicTest.dynamicTest(name(case.jsonObject)) { test(case.jsonObject) } }

fun JsonObject.list(name: String): JsonArray = getValue(name).jsonArray

fun JsonObject.text(name: String): String = getValue(name).jsonPrimitive.content

fun JsonObject.int(name: String): Int = getValue(name).jsonPrimitive.int

fun JsonObject.double(name: String): Double = getValue(name).jsonPrimitive.double

fun JsonElement.ints(): IntArray = jsonArray.map { it.jsonPrimitive.int }.toIntArray()

/** A pair [width, height]. */
fun JsonObject.size(name: String): Size = getValue(name).ints().let { (width, height) -> Size(width, height) }

fun JsonObject.fit(): Fit {
    val (x, y) = getValue("offset").ints()
    return Fit(size("source"), size("resized"), Point(x, y), size("target"))
}

fun JsonObject.rule(): ResizeRule = ResizeRule.entries.single { it.id == text("rule") }

/** A pair [height, width]. */
fun JsonObject.target(): ImageSize = getValue("target").ints().let { (height, width) -> ImageSize(height, width) }
