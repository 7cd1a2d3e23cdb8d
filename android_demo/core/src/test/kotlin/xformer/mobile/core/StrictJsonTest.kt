package xformer.mobile.core

import kotlinx.serialization.json.Json
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.MethodSource
import org.junit.jupiter.params.provider.ValueSource
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class StrictJsonTest {
    @ParameterizedTest
    @ValueSource(
        strings = [
            "{}", "[]", "null", "true", "false", "0", "-0", "12", "-3.25", "1e3", "1E-3", "2.5e+10", "\"\"",
            " {\"a\" : [ 1 , 2 ] ,\r\n\t\"b\" : { } } ", "[[],{},\"x\"]",
            "\"\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u00e4\"",
            "\"ä € 🦒\"", "123456789012345678901234567890", "1e999",
        ],
    )
    fun `JSON is read as others read it`(text: String) {
        val found = StrictJson.parse(text.encodeToByteArray())
        val expected = Json.parseToJsonElement(text)
        // Numbers are kept as numbers, so 1e3 is written 1000.0: the values are compared.
        assertEquals(normal(expected.toString()), normal(found.toString()))
    }

    private fun normal(json: String): Any = json.toDoubleOrNull()?.plus(0.0) ?: Json.parseToJsonElement(json)

    @ParameterizedTest
    @MethodSource("bad")
    fun `what is not JSON is refused`(text: String, problem: String) {
        val error = assertFailsWith<JsonException> { StrictJson.parse(text.encodeToByteArray()) }
        assertContains(checkNotNull(error.message), problem)
    }

    @Test
    fun `bytes that are no text are refused`() {
        val error = assertFailsWith<JsonException> { StrictJson.parse(byteArrayOf(-1, -2, -3)) }
        assertEquals("it is no text in UTF-8", error.message)
    }

    @Test
    fun `the message names the line`() {
        val error = assertFailsWith<JsonException> { StrictJson.parse("{\n\"a\": 1,\n\"a\": 2}".encodeToByteArray()) }
        assertEquals("'a' stands twice in one object, in line 3", error.message)
    }

    companion object {
        @JvmStatic
        fun bad(): List<Array<String>> = listOf(
            arrayOf("", "expected a value"),
            arrayOf("{", "expected a name in quotes"),
            arrayOf("[1", "expected ']'"),
            arrayOf("[1,]", "expected a value"),
            arrayOf("{\"a\":1,}", "expected a name in quotes"),
            arrayOf("{a:1}", "expected a name in quotes"),
            arrayOf("{\"a\" 1}", "expected ':'"),
            arrayOf("[1 2]", "expected ']'"),
            arrayOf("1 2", "there is more behind its end"),
            arrayOf("{}\u0000", "there is more behind its end"),
            arrayOf("NaN", "expected a value"),
            arrayOf("-Infinity", "expected a value"),
            arrayOf("nul", "expected a value"),
            arrayOf("word", "expected a value"),
            arrayOf("+1", "expected a value"),
            arrayOf("01", "there is more behind its end"),
            arrayOf("1.", "expected a value"),
            arrayOf(".5", "expected a value"),
            arrayOf("1e", "expected a value"),
            arrayOf("0x10", "there is more behind its end"),
            arrayOf("-", "expected a value"),
            arrayOf("'a'", "expected a value"),
            arrayOf("\"a", "or no end"),
            arrayOf("\"a\nb\"", "a control character"),
            arrayOf("\"\\x\"", "a bad escape"),
            arrayOf("\"\\u12\"", "a bad escape"),
            arrayOf("\"\\u12g4\"", "a bad escape"),
            arrayOf("\"\\u١٢٣٤\"", "a bad escape"),
            arrayOf("\"\\", "a bad escape"),
            arrayOf("\uFEFF{}", "expected a value"),
            arrayOf("// x\n{}", "expected a value"),
            arrayOf("{\"a\":1,\"a\":1}", "'a' stands twice"),
            arrayOf("{\"a\":1,\"\\u0061\":1}", "'a' stands twice"),
            arrayOf("[".repeat(100_000), "nested more than 64 deep"),
            arrayOf("{\"a\":".repeat(65) + "1" + "}".repeat(65), "nested more than 64 deep"),
            arrayOf("1".repeat(1001), "more than 1000 digits"),
            arrayOf("0." + "1".repeat(1000), "more than 1000 digits"),
        )
    }
}
