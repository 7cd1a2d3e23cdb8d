package xformer.mobile.demo.ui

import kotlin.math.roundToInt
import xformer.mobile.demo.R

/** Numbers as the app writes them. */
object Figures {
    private const val NS_PER_MS = 1e6

    /** A share 0..1 in percent: "91 %". */
    fun percent(words: Words, share: Double): String = words.text(R.string.percent, (100 * share).roundToInt())

    /** Nanoseconds in milliseconds: "12.3 ms". */
    fun milliseconds(words: Words, ns: Double): String = words.text(R.string.milliseconds, ns / NS_PER_MS)
}
