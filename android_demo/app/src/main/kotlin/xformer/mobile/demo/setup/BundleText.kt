package xformer.mobile.demo.setup

import xformer.mobile.core.Bundle
import xformer.mobile.core.Task
import xformer.mobile.demo.R
import xformer.mobile.demo.model.StoredBundle
import xformer.mobile.demo.ui.Words

/** Bundles in the words of the setup screen. */
class BundleText(private val words: Words) {
    /** The bundle's name; what is in it, or why it can't be used, where it is the one that is chosen. */
    fun of(bundle: StoredBundle, setup: Setup): String {
        val opened = setup.opened
        val problem = setup.problem
        return when {
            bundle != setup.chosen -> bundle.name
            problem != null -> words.text(R.string.bundle_broken, bundle.name, problem)
            opened != null -> described(bundle.name, opened)
            else -> bundle.name
        }
    }

    private fun described(name: String, opened: Bundle): String = words.text(
        R.string.bundle_description,
        name,
        words.text(task(opened.task)),
        opened.imageSize.toString(),
        opened.precision,
        opened.formats.joinToString(words.text(R.string.list_separator)) { it.id },
    )

    private fun task(task: Task): Int = when (task) {
        Task.CLASSIFY -> R.string.task_classify
        Task.DETECT -> R.string.task_detect
        Task.SEGMENT -> R.string.task_segment
    }
}
