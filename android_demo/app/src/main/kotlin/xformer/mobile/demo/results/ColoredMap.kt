package xformer.mobile.demo.results

import xformer.mobile.core.ClassMap
import xformer.mobile.core.Rgb

/** A class map as ARGB pixels, small enough to be drawn: [width] x [height], rows from the top. */
class ColoredMap private constructor(val width: Int, val height: Int, val argb: IntArray) {
    companion object {
        /** The longer side is not above this. */
        const val MOST_SIDE = 1024

        /** So much of the picture shows through. */
        private const val ALPHA = 144

        /** Every n-th pixel of [map] in each direction, with n as small as [MOST_SIDE] allows. */
        fun of(map: ClassMap, palette: List<Rgb>): ColoredMap {
            val step = (maxOf(map.width, map.height) + MOST_SIDE - 1) / MOST_SIDE
            val width = (map.width + step - 1) / step
            val height = (map.height + step - 1) / step
            val colors = IntArray(palette.size) { ClassColors.argb(palette[it], ALPHA) }
            val argb = IntArray(width * height) { colors[map.classAt(it % width * step, it / width * step)] }
            return ColoredMap(width, height, argb)
        }
    }
}
