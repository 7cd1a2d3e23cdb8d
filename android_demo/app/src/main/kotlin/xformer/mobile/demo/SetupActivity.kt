package xformer.mobile.demo

import android.content.ActivityNotFoundException
import android.content.Intent
import android.os.Bundle
import android.view.LayoutInflater
import android.view.View
import android.widget.RadioButton
import android.widget.RadioGroup
import android.widget.TextView
import kotlinx.coroutines.launch
import xformer.mobile.demo.model.Choice
import xformer.mobile.demo.model.EngineIds
import xformer.mobile.demo.setup.BundleText
import xformer.mobile.demo.setup.Setup
import xformer.mobile.demo.setup.SetupState
import xformer.mobile.demo.ui.ResourceWords
import xformer.mobile.demo.ui.RetainingActivity
import xformer.mobile.demo.ui.keepClearOfBars

/** The choice of bundle, engine, accelerator and threads. Every choice counts at once. */
class SetupActivity : RetainingActivity<SetupState>() {
    private val words by lazy { ResourceWords(resources) }

    override fun createState() = SetupState(Demo(this), applicationContext.contentResolver)

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.activity_setup)
        findViewById<View>(R.id.root).keepClearOfBars()
        findViewById<View>(R.id.import_bundle).setOnClickListener { chooseZip() }
        findViewById<View>(R.id.remove_bundle).setOnClickListener { state.remove() }
    }

    override fun onStart() {
        super.onStart()
        visible.launch { state.setup.collect(::show) }
    }

    private fun chooseZip() {
        val intent =
            Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*")
                .putExtra(Intent.EXTRA_MIME_TYPES, ZIP_TYPES)
        try {
            startActivityForResult(intent, 0)
        } catch (_: ActivityNotFoundException) {
            notice(words.text(R.string.file_no_app))
        }
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        val chosen = data?.data
        if (result == RESULT_OK && chosen != null) state.import(chosen)
    }

    private fun show(setup: Setup) {
        val bundles = setup.bundles ?: return
        notice(setup.notice ?: if (bundles.isEmpty()) words.text(R.string.no_bundle) else null)
        val text = BundleText(words)
        val choice = setup.choice
        fill(
            R.id.bundles,
            bundles.map { Row(text.of(it, setup), it == setup.chosen) { old -> old.copy(bundle = it.name) } },
        )
        findViewById<View>(R.id.remove_bundle).visibility =
            if (setup.chosen?.imported == true) View.VISIBLE else View.GONE
        findViewById<View>(R.id.ways).visibility = if (setup.opened == null) View.GONE else View.VISIBLE
        fill(
            R.id.engines,
            setup.menu.engines.map { entry ->
                Row(words.text(EngineIds.text(entry.value)), entry.value == choice.engine, entry.problem) {
                    it.copy(engine = entry.value, accelerator = null)
                }
            },
        )
        fill(
            R.id.accelerators,
            setup.menu.accelerators(choice.engine).map { entry ->
                Row(words.text(EngineIds.text(entry.value)), entry.value == choice.accelerator, entry.problem) {
                    it.copy(accelerator = entry.value)
                }
            },
        )
        fill(
            R.id.threads,
            (listOf(null) + THREADS).map { threads ->
                val name = if (threads == null) {
                    words.text(R.string.threads_default)
                } else {
                    words.count(R.plurals.threads, threads, threads)
                }
                Row(name, threads == choice.threads) { it.copy(threads = threads) }
            },
        )
    }

    private fun notice(text: String?) {
        val view = findViewById<TextView>(R.id.notice)
        view.visibility = if (text == null) View.GONE else View.VISIBLE
        if (view.text.toString() != text.orEmpty()) view.text = text
    }

    /** A line of a group; [problem] says why it can't be chosen, null where it can. [change] is what choosing it means. */
    private class Row(
        val name: String,
        val checked: Boolean,
        val problem: String? = null,
        val change: (Choice) -> Choice,
    )

    /** Show the rows in a group; views stay, so that the one that a screen reader is on does not go away. */
    private fun fill(group: Int, rows: List<Row>) {
        val view = findViewById<RadioGroup>(group)
        view.setOnCheckedChangeListener(null)
        while (view.childCount > rows.size) view.removeViewAt(view.childCount - 1)
        rows.forEachIndexed { index, row ->
            if (index == view.childCount) {
                LayoutInflater.from(this).inflate(R.layout.choice, view, true)
                view.getChildAt(index).id = View.generateViewId()
            }
            val button = view.getChildAt(index) as RadioButton
            button.text = if (row.problem == null) row.name else words.text(R.string.unavailable, row.name, row.problem)
            button.isEnabled = row.problem == null
            if (row.checked) view.check(button.id)
        }
        if (rows.none { it.checked }) view.clearCheck()
        view.setOnCheckedChangeListener { _, id ->
            val index = (0 until view.childCount).firstOrNull { view.getChildAt(it).id == id }
            if (index != null) state.choose(rows[index].change)
        }
    }

    private companion object {
        /** What file managers take a .zip file for. */
        val ZIP_TYPES = arrayOf("application/zip", "application/x-zip-compressed", "application/octet-stream")

        /** What phones have: more threads than fast cores are slower. */
        val THREADS = listOf(1, 2, 4, 6, 8)
    }
}
