package xformer.mobile.demo.results

import xformer.mobile.core.ClassMap
import xformer.mobile.core.Classifications
import xformer.mobile.core.Detections
import xformer.mobile.core.Prediction
import xformer.mobile.core.Rgb

/**
 * One line of the list below a picture.
 *
 * @property share 0..1: a probability, a score, or the share of the picture.
 * @property color of the box or of the pixels; null where nothing is drawn in a color.
 */
data class ResultRow(val label: String, val share: Double, val color: Rgb?)

/**
 * The list below a picture, best first.
 *
 * @property others how many results are left out.
 * @property othersShare the share 0..1 of the picture that those cover; 0 but for class maps.
 */
data class ResultRows(val rows: List<ResultRow>, val others: Int, val othersShare: Double) {
    companion object {
        private const val MOST = 5

        /** A class that covers less of the picture gets no line of its own. */
        private const val LEAST_SHARE = 0.01

        /** Less than this would be written as 0 %. */
        private const val LEAST_OTHERS = 0.005

        /**
         * The lines of a result: the five most probable classes, the five best boxes, or the legend of a class map:
         * at most five classes that cover a percent and more.
         *
         * @param palette of the class map; one color for each class.
         */
        fun of(prediction: Prediction, palette: List<Rgb>): ResultRows = when (prediction) {
            is Classifications -> cut(prediction.map { ResultRow(it.label, it.probability, null) })
            is Detections ->
                cut(prediction.map { ResultRow(it.label, it.score.toDouble(), ClassColors.of(it.index)) })
            is ClassMap -> legend(prediction, palette)
        }

        private fun cut(rows: List<ResultRow>): ResultRows =
            ResultRows(rows.take(MOST), (rows.size - MOST).coerceAtLeast(0), 0.0)

        private fun legend(map: ClassMap, palette: List<Rgb>): ResultRows {
            val present = map.shares().filter { it.share > 0 }
            val shown = present.filter { it.share >= LEAST_SHARE }.take(MOST)
            val rows = shown.map { ResultRow(it.label, it.share, palette[it.index]) }
            val rest = present.drop(shown.size)
            val share = rest.sumOf { it.share }
            return if (share < LEAST_OTHERS) ResultRows(rows, 0, 0.0) else ResultRows(rows, rest.size, share)
        }
    }
}
