package xformer.mobile.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/** A text is not JSON; [message] says where and why. */
internal class JsonException(message: String) : Exception(message)

/**
 * Reads JSON (RFC 8259) that nobody vouches for, so that it has one reading only.
 *
 * kotlinx.serialization takes the last of two equal keys, words without quotes, numbers in quotes and line breaks in
 * strings; a deeply nested text overflows the stack of what walks through it. All that is refused here.
 */
internal class StrictJson private constructor(private val text: String) {
    private var at = 0

    private fun value(depth: Int): JsonElement = when (peek()) {
        '{' -> container(depth, '}') { members(depth) }
        '[' -> container(depth, ']') { JsonArray(list(']') { value(depth + 1) }) }
        '"' -> JsonPrimitive(string())
        't' -> word("true", JsonPrimitive(true))
        'f' -> word("false", JsonPrimitive(false))
        'n' -> word("null", JsonNull)
        else -> number()
    }

    private fun container(depth: Int, end: Char, content: () -> JsonElement): JsonElement {
        if (depth == MAX_DEPTH) fail("it is nested more than $MAX_DEPTH deep")
        at++
        val element = content()
        expect(end)
        return element
    }

    private fun members(depth: Int): JsonObject {
        val members = LinkedHashMap<String, JsonElement>()
        list('}') {
            if (peek() != '"') fail("expected a name in quotes")
            val name = string()
            skipSpace()
            expect(':')
            skipSpace()
            if (members.put(name, value(depth + 1)) != null) fail("${quote(name)} stands twice in one object")
        }
        return JsonObject(members)
    }

    /** What stands between commas, up to [end]. */
    private fun <T> list(end: Char, item: () -> T): List<T> {
        val items = mutableListOf<T>()
        skipSpace()
        if (peek() == end) return items
        while (true) {
            items += item()
            skipSpace()
            if (peek() != ',') return items
            at++
            skipSpace()
        }
    }

    private fun word(word: String, element: JsonElement): JsonElement {
        if (!text.startsWith(word, at)) fail("expected a value")
        at += word.length
        return element
    }

    private fun string(): String {
        val content = StringBuilder()
        at++
        while (true) {
            val letter = peek()
            at++
            when {
                letter == '"' -> return content.toString()
                letter == '\\' -> content.append(escaped())
                letter < ' ' -> fail("a string has a control character that is not escaped, or no end")
                else -> content.append(letter)
            }
        }
    }

    private fun escaped(): Char {
        val letter = peek()
        at++
        if (letter == 'u') {
            val digits = text.substring(at, minOf(at + 4, text.length))
            if (digits.length < 4 || digits.any { it.digitToIntOrNull(16) == null || it > 'f' }) fail("a bad escape")
            at += 4
            return digits.toInt(16).toChar()
        }
        val index = ESCAPES.indexOf(letter)
        if (index < 0) fail("a bad escape")
        return ESCAPED[index]
    }

    private fun number(): JsonPrimitive {
        val from = at
        if (peek() == '-') at++
        if (peek() == '0') at++ else digits()
        var isInteger = true
        if (peek() == '.') {
            isInteger = false
            at++
            digits()
        }
        if (peek() == 'e' || peek() == 'E') {
            isInteger = false
            at++
            if (peek() == '+' || peek() == '-') at++
            digits()
        }
        // Reading a long one as a number takes time that grows with the square of its digits.
        if (at - from > MAX_NUMBER_LENGTH) fail("a number has more than $MAX_NUMBER_LENGTH digits")
        val literal = text.substring(from, at)
        if (!isInteger) return JsonPrimitive(literal.toDouble())
        return JsonPrimitive(literal.toLongOrNull() ?: literal.toBigInteger())
    }

    private fun digits() {
        if (peek() !in '0'..'9') fail("expected a value")
        while (peek() in '0'..'9') at++
    }

    private fun skipSpace() {
        while (peek() in " \t\n\r") at++
    }

    private fun expect(letter: Char) {
        if (peek() != letter) fail("expected '$letter'")
        at++
    }

    /** The next letter; NUL at the end, where no value, string or list may end. */
    private fun peek(): Char = if (at < text.length) text[at] else '\u0000'

    private fun fail(problem: String): Nothing {
        val line = 1 + text.substring(0, minOf(at, text.length)).count { it == '\n' }
        throw JsonException("$problem, in line $line")
    }

    companion object {
        /** A manifest is nested 8 deep. */
        private const val MAX_DEPTH = 64
        private const val MAX_NUMBER_LENGTH = 1000
        private const val ESCAPES = "\"\\/bfnrt"
        private const val ESCAPED = "\"\\/\b\u000C\n\r\t"

        /**
         * Reads UTF-8.
         *
         * @throws JsonException it is not JSON, or nested too deeply, or has a name twice in one object.
         */
        fun parse(content: ByteArray): JsonElement {
            val text = try {
                Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(content)).toString()
            } catch (_: CharacterCodingException) {
                throw JsonException("it is no text in UTF-8")
            }
            val reader = StrictJson(text)
            reader.skipSpace()
            val element = reader.value(depth = 0)
            reader.skipSpace()
            if (reader.at < text.length) reader.fail("there is more behind its end")
            return element
        }
    }
}

/** Text of a stranger for a message: one short line, in quotes. */
internal fun quote(text: String): String {
    val letters = text.take(QUOTED).map { if (it.isISOControl() || it.isSurrogate()) '\uFFFD' else it }
    return letters.joinToString("", "'", if (text.length > QUOTED) "...'" else "'")
}

private const val QUOTED = 60
