package xformer.mobile.demo.model

import xformer.mobile.core.Manifest
import xformer.mobile.demo.R

/** What has to be said of a model before anything that it says. */
object Banner {
    /** The string for weights of that origin; null where there is nothing to warn of. */
    fun of(source: Manifest.WeightsSource): Int? = when (source) {
        Manifest.WeightsSource.SAMPLE -> R.string.banner_sample
        Manifest.WeightsSource.UNTRAINED -> R.string.banner_untrained
        Manifest.WeightsSource.CHECKPOINT -> null
    }
}
