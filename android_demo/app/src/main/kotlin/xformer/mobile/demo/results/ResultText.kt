package xformer.mobile.demo.results

import xformer.mobile.core.ClassMap
import xformer.mobile.core.Classifications
import xformer.mobile.core.Detections
import xformer.mobile.core.Prediction
import xformer.mobile.demo.R
import xformer.mobile.demo.ui.Figures
import xformer.mobile.demo.ui.Words

/** Results in a sentence, for screen readers. */
class ResultText(private val words: Words) {
    /** The most probable class; how many objects of which classes; or the classes that cover most of the picture. */
    fun of(prediction: Prediction): String = when (prediction) {
        is Classifications -> {
            val best = prediction.firstOrNull()
            if (best == null) {
                words.text(R.string.result_nothing)
            } else {
                words.text(R.string.result_class, best.label, Figures.percent(words, best.probability))
            }
        }
        is Detections -> objects(prediction.map { it.label })
        is ClassMap ->
            prediction.shares()
                .filter { it.share >= LEAST_SHARE }
                .take(MOST_CLASSES)
                .joinToString(words.text(R.string.list_separator)) {
                    words.text(R.string.result_share, it.label, Figures.percent(words, it.share))
                }
    }

    private fun objects(labels: List<String>): String {
        if (labels.isEmpty()) return words.text(R.string.result_no_objects)
        val counted = labels.groupingBy { it }.eachCount().entries.joinToString(words.text(R.string.list_separator)) {
            if (it.value == 1) it.key else words.text(R.string.result_several, it.key, it.value)
        }
        return words.count(R.plurals.result_objects, labels.size, labels.size, counted)
    }

    private companion object {
        const val MOST_CLASSES = 3
        const val LEAST_SHARE = 0.05
    }
}
