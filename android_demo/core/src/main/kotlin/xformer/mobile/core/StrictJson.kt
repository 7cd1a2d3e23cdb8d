package xformer.mobile.core

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/** A text is not JSON; [message] says why. */
internal class JsonException(message: String) : Exception(message)

/**
 * Reads JSON (RFC 8259) that nobody vouches for, so that it has one reading only.
 *
 * kotlinx.serialization reads it, but it takes the last of two equal names, words without quotes, line breaks in
 * strings and a list that is ended twice (`[1]2]`), and a deeply nested text overflows the stack of what walks through
 * the tree. So the letters are looked through before, and what was read after.
 */
internal object StrictJson {
    /** A manifest is nested 8 deep. */
    private const val MAX_DEPTH = 64

    /** With as many labels and colors as there may be, a manifest has 330,000. All of them fit a phone's heap. */
    private const val MAX_VALUES = 1 shl 19

    private const val MAX_NUMBER_LENGTH = 1000
    private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")

    /**
     * Reads UTF-8.
     *
     * @throws JsonException it is not JSON, or nested too deeply, or has a name twice in one object, or too many
     *     values.
     */
    fun parse(content: ByteArray): JsonElement {
        val text = try {
            Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(content)).toString()
        } catch (_: CharacterCodingException) {
            throw JsonException("it is no text in UTF-8")
        }
        val names = countNames(text)
        val element = try {
            Json.parseToJsonElement(text)
        } catch (error: SerializationException) {
            throw JsonException(printable(error.message.orEmpty().lineSequence().first(), LONGEST))
        }
        // The tree has one of the equal names, the text has them all.
        if (countNames(element) != names) throw JsonException("a name stands twice in one object")
        return element
    }

    /** The number of names in a text, if it is JSON: each has a colon behind it. */
    private fun countNames(text: String): Int {
        var names = 0
        var values = 0
        var depth = 0
        var isString = false
        var at = 0
        while (at < text.length) {
            val letter = text[at++]
            when {
                letter == '"' -> isString = !isString
                isString && letter == '\\' -> at++
                isString && letter < ' ' -> throw JsonException("a string has a control character that is not escaped")
                isString -> Unit
                letter == ':' -> names++
                letter == ',' -> values++
                letter == '}' || letter == ']' -> depth--
                letter == '{' || letter == '[' -> {
                    values++
                    if (++depth > MAX_DEPTH) throw JsonException("it is nested more than $MAX_DEPTH deep")
                }
            }
        }
        if (depth != 0) throw JsonException("its brackets are not in pairs")
        if (values > MAX_VALUES) throw JsonException("it has more than $MAX_VALUES values")
        return names
    }

    /** The number of names in a tree; looks at its words and numbers, too. */
    private fun countNames(element: JsonElement): Int = when (element) {
        is JsonObject -> element.size + element.values.sumOf(::countNames)
        is JsonArray -> element.sumOf(::countNames)
        is JsonNull -> 0
        is JsonPrimitive -> 0.also { if (!element.isString) checkLiteral(element.content) }
    }

    private fun checkLiteral(literal: String) {
        if (literal == "true" || literal == "false") return
        // Some readers take time for a number that grows with the square of its digits.
        if (literal.length > MAX_NUMBER_LENGTH) throw JsonException("a number has more than $MAX_NUMBER_LENGTH digits")
        if (!NUMBER.matches(literal)) throw JsonException("got ${quote(literal)}, which is no value")
    }
}

private const val LONGEST = 200

/** Text of a stranger for a message: one short line, in quotes. */
internal fun quote(text: String): String = "'${printable(text, QUOTED)}'"

private const val QUOTED = 60

private fun printable(text: String, most: Int): String {
    val letters = text.take(most).map { if (it.isISOControl() || it.isSurrogate()) '\uFFFD' else it }
    return letters.joinToString("", postfix = if (text.length > most) "..." else "")
}
