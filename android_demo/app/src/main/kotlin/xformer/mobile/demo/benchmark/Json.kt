package xformer.mobile.demo.benchmark

/** Writes JSON of maps, lists, strings, numbers, booleans and null; numbers that JSON does not have become null. */
internal object Json {
    private const val FIRST_PRINTABLE = ' '

    /** The document, on one line. */
    fun write(value: Any?): String = StringBuilder().also { append(it, value) }.toString()

    private fun append(to: StringBuilder, value: Any?) {
        when (value) {
            null -> to.append("null")
            is Boolean, is Int, is Long -> to.append(value)
            is Double -> to.append(if (value.isFinite()) value.toString() else "null")
            is String -> string(to, value)
            is List<*> -> {
                to.append('[')
                value.forEachIndexed { index, item ->
                    if (index > 0) to.append(", ")
                    append(to, item)
                }
                to.append(']')
            }
            is Map<*, *> -> {
                to.append('{')
                value.entries.forEachIndexed { index, (name, item) ->
                    if (index > 0) to.append(", ")
                    string(to, name as String)
                    to.append(": ")
                    append(to, item)
                }
                to.append('}')
            }
            else -> throw IllegalArgumentException("JSON has no ${value.javaClass.simpleName}")
        }
    }

    private fun string(to: StringBuilder, text: String) {
        to.append('"')
        for (letter in text) {
            when {
                letter == '"' || letter == '\\' -> to.append('\\').append(letter)
                letter == '\n' -> to.append("\\n")
                letter < FIRST_PRINTABLE -> to.append("\\u").append(letter.code.toString(16).padStart(4, '0'))
                else -> to.append(letter)
            }
        }
        to.append('"')
    }
}
