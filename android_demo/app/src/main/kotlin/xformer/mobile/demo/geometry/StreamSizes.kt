package xformer.mobile.demo.geometry

import kotlin.math.abs
import xformer.mobile.core.Size

/**
 * The sizes of a camera's two streams, as the sensor lies: what is shown and what is analyzed.
 *
 * Both have one shape wherever the camera allows it, for streams of one shape are cut from the sensor alike, and boxes
 * that were found in one lie right on the other.
 */
data class StreamSizes(val preview: Size, val analysis: Size) {
    companion object {
        /** Analyzed pictures are not smaller, where there is a choice: inputs are 256 pixels wide or so. */
        private const val ANALYSIS_PIXELS = 640 * 480

        /** Every camera can show this much beside a second stream. */
        private const val PREVIEW_SIDE = 1920

        /** Most sensors' own shape, width by height: nothing is cut off. */
        private const val SHAPE = 4.0 / 3.0

        /** Sizes whose shapes differ by less are of one shape: 176x144 and the like are rounded. */
        private const val SAME_SHAPE = 0.02

        /**
         * Choose from what a camera offers.
         *
         * The analyzed size is the smallest of at least 640x480 pixels (the largest, where all are smaller) of the
         * shape nearest to 4:3 that both lists have; the shown size the largest of that shape, up to 1920 pixels.
         *
         * @return null where a list is empty.
         */
        fun choose(preview: List<Size>, analysis: List<Size>): StreamSizes? {
            val shown = preview.filter { maxOf(it.width, it.height) <= PREVIEW_SIDE }.ifEmpty { preview }
            val pairs = analysis.flatMap { small -> shown.map { StreamSizes(it, small) } }
            val alike = pairs.filter { apart(shape(it.preview), shape(it.analysis)) <= SAME_SHAPE }.ifEmpty { pairs }
            val nearest = alike.minOfOrNull { apart(shape(it.analysis), SHAPE) } ?: return null
            val shaped = alike.filter { apart(shape(it.analysis), SHAPE) <= nearest + SAME_SHAPE }
            val enough = shaped.filter { pixels(it.analysis) >= ANALYSIS_PIXELS }
            val small = enough.minOfOrNull { pixels(it.analysis) } ?: shaped.maxOf { pixels(it.analysis) }
            return shaped.filter { pixels(it.analysis) == small }
                .sortedBy { apart(shape(it.preview), shape(it.analysis)) }
                .maxByOrNull { pixels(it.preview) }
        }

        private fun shape(size: Size): Double = size.width.toDouble() / size.height

        private fun apart(one: Double, other: Double): Double = abs(one / other - 1)

        private fun pixels(size: Size): Long = size.width.toLong() * size.height
    }
}
