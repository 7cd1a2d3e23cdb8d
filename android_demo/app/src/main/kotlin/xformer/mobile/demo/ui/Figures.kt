package xformer.mobile.demo.ui

import xformer.mobile.demo.R
import kotlin.math.roundToInt

/** Numbers as the app writes them. */
object Figures {
    private const val NS_PER_MS = 1e6
    private const val BYTES_PER_MB = 1e6

    /** A share 0..1 in percent: "91 %". */
    fun percent(words: Words, share: Double): String = words.text(R.string.percent, (100 * share).roundToInt())

    /** Nanoseconds in milliseconds: "12.3 ms". */
    fun milliseconds(words: Words, ns: Double): String = words.text(R.string.milliseconds, ns / NS_PER_MS)

    /** Bytes in megabytes of 10^6: "11.2 MB". */
    fun megabytes(words: Words, bytes: Long): String = words.text(R.string.megabytes, bytes / BYTES_PER_MB)
}
