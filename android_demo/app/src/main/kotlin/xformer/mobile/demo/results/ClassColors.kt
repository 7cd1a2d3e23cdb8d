package xformer.mobile.demo.results

import xformer.mobile.core.Rgb

/** The colors of boxes: Okabe and Ito's, which people who see few colors can tell apart; each box has its label too. */
object ClassColors {
    private val COLORS = listOf(
        Rgb(230, 159, 0),
        Rgb(86, 180, 233),
        Rgb(0, 158, 115),
        Rgb(240, 228, 66),
        Rgb(0, 114, 178),
        Rgb(213, 94, 0),
        Rgb(204, 121, 167),
    )

    /** The color of a class; classes that are seven apart share one. */
    fun of(index: Int): Rgb = COLORS[Math.floorMod(index, COLORS.size)]

    /** As `android.graphics.Color` has it; [alpha] is 0..255. */
    fun argb(color: Rgb, alpha: Int = 0xFF): Int =
        (alpha shl 24) or (color.red shl 16) or (color.green shl 8) or color.blue
}
