package xformer.mobile.core

import com.fasterxml.jackson.core.JacksonException
import com.fasterxml.jackson.core.StreamReadFeature
import com.fasterxml.jackson.databind.DeserializationFeature
import com.fasterxml.jackson.databind.json.JsonMapper
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.MethodSource
import org.junit.jupiter.params.provider.ValueSource
import java.nio.charset.CharacterCodingException
import kotlin.random.Random
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class StrictJsonTest {
    /** Another reader, as strict as it can be. */
    private val jackson = JsonMapper.builder()
        .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
        .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
        .build()

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
        val expected = jackson.readTree(text)
        assertEquals(expected, jackson.readTree(StrictJson.parse(text.encodeToByteArray()).toString()))
    }

    @ParameterizedTest
    @MethodSource("bad")
    fun `what is not JSON is refused`(text: String) {
        val message = refusal(text)
        assertTrue('\n' !in message && message.length in 1..250, message)
    }

    @ParameterizedTest
    @MethodSource("refused")
    fun `what has two readings, or takes too much, is refused`(text: String, problem: String) {
        assertEquals(problem, refusal(text))
    }

    @Test
    fun `bytes that are no text are refused`() {
        val error = assertFailsWith<JsonException> { StrictJson.parse(byteArrayOf(-1, -2, -3)) }
        assertEquals("it is no text in UTF-8", error.message)
    }

    @Test
    fun `the message names the place`() {
        assertContains(refusal("{\n\"a\": [1 2]}"), "at offset 11")
    }

    @Test
    fun `as many values as there may be fit the memory`() {
        val most = 1 shl 19
        for (text in listOf("[" + "7,".repeat(most - 1) + "7]", "[" + "[],".repeat(most / 2 - 1) + "7]")) {
            StrictJson.parse(text.encodeToByteArray())
        }
        val large = "[" + "7,".repeat(Manifest.MAX_BYTES / 2 - 2) + "7]"
        assertEquals("it has more than $most values", refusal(large))
    }

    @Test
    fun `texts changed at random are taken where another reader takes them`() {
        val content = """{"a": [1, -2.5e+3, {"b\u0062": null, "b": "x:\"\\"}], "c": {"d": true, "e": [[], {}]}}"""
        val bytes = content.encodeToByteArray()
        assertTakenAlike(5_000) { random -> mutated(bytes, random) }
    }

    @Test
    fun `marks and values in any order are taken where another reader takes them`() {
        val parts =
            listOf("{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "\"a\":", "1", "0", "-", "null", "\"", "\\", " ")
        assertTakenAlike(50_000) { random ->
            List(random.nextInt(1, 9)) { parts.random(random) }.joinToString("").encodeToByteArray()
        }
    }

    private fun assertTakenAlike(count: Int, text: (Random) -> ByteArray) {
        var taken = 0
        forSeeds(count) { random ->
            val content = text(random)
            val expected = try {
                jackson.readTree(content.decodeToString(throwOnInvalidSequence = true)).takeUnless { it.isMissingNode }
            } catch (_: JacksonException) {
                null
            } catch (_: CharacterCodingException) {
                null
            }
            val found = try {
                jackson.readTree(StrictJson.parse(content).toString())
            } catch (_: JsonException) {
                null
            }
            assertEquals(expected?.toString(), found?.toString(), content.decodeToString())
            if (found != null) taken++
        }
        assertTrue(taken > count / 50, "only $taken were taken: the test says little")
    }

    private fun refusal(text: String): String =
        checkNotNull(assertFailsWith<JsonException> { StrictJson.parse(text.encodeToByteArray()) }.message)

    companion object {
        @JvmStatic
        fun bad(): List<String> = listOf(
            "", " ", "{", "[1", "[1,]", "[,1]", "{\"a\":1,}", "{a:1}", "{\"a\" 1}", "{\"a\":1:2}", "{1:2}",
            "[1 2]", "[1}", "[1]2]", "[[1][2]]", "[1][2]]", "[[]{}]", "{}]", "1 2", "{}\u0000", "{}{}", "nul",
            "word", "[true false]", "[tru]", "[True]", "'a'", "\"a", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"",
            "\"\\u١٢٣٤\"", "\"\\", "\uFEFF{}", "// x\n{}", "/* x */{}", "[a:1]", "[\"a\":1]", "\"a\"b",
            "\"a\"\"b\"",
        )

        @JvmStatic
        fun refused(): List<Array<String>> =
            listOf(
                "NaN", "-Infinity", "+1", "01", "-01", "1.", ".5", "1e", "1e+", "0x10", "-", "--1", "1f", "1_0", "١",
            ).map {
                arrayOf("[$it]", "got '$it', which is no value")
            } + listOf(
                arrayOf("\"a\nb\"", "a string has a control character that is not escaped"),
                arrayOf("{\"a\":1,\"a\":1}", "a name stands twice in one object"),
                arrayOf("{\"a\":1,\"\\u0061\":1}", "a name stands twice in one object"),
                arrayOf("[{\"b\":{\"a:\":1,\"a:\":\":\"}}]", "a name stands twice in one object"),
                arrayOf("[".repeat(100_000), "it is nested more than 64 deep"),
                arrayOf("{\"a\":".repeat(65) + "1" + "}".repeat(65), "it is nested more than 64 deep"),
                arrayOf("1".repeat(1001), "a number has more than 1000 digits"),
                arrayOf("0." + "1".repeat(1000), "a number has more than 1000 digits"),
            )
    }
}
