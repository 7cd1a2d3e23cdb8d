package xformer.mobile.demo

import android.content.ActivityNotFoundException
import android.content.ClipData
import android.content.Intent
import android.os.Bundle
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.view.WindowManager
import android.widget.CheckBox
import android.widget.ProgressBar
import android.widget.RadioButton
import android.widget.RadioGroup
import android.widget.TextView
import java.io.IOException
import kotlin.math.roundToInt
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import xformer.mobile.demo.benchmark.BenchmarkPhase
import xformer.mobile.demo.benchmark.BenchmarkReport
import xformer.mobile.demo.benchmark.BenchmarkScreenState
import xformer.mobile.demo.benchmark.BenchmarkStep
import xformer.mobile.demo.benchmark.OutcomeText
import xformer.mobile.demo.benchmark.ReportView
import xformer.mobile.demo.benchmark.Subject
import xformer.mobile.demo.benchmark.Way
import xformer.mobile.demo.model.EngineIds
import xformer.mobile.demo.ui.ResourceWords
import xformer.mobile.demo.ui.RetainingActivity
import xformer.mobile.demo.ui.keepClearOfBars

/** Parity and latency of a bundle on this device. */
class BenchmarkActivity : RetainingActivity<BenchmarkScreenState>() {
    private lateinit var report: ReportView
    private var shown: BenchmarkReport? = null
    private val words by lazy { ResourceWords(resources) }
    private val outcomeText by lazy { OutcomeText(words) }

    override fun createState() = BenchmarkScreenState(Demo(this))

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.activity_benchmark)
        findViewById<View>(R.id.root).keepClearOfBars()
        report = ReportView(findViewById(R.id.report))
        showRuns()
        findViewById<View>(R.id.start).setOnClickListener { (state.subject.value as? Subject.Ready)?.let(::start) }
        findViewById<View>(R.id.cancel).setOnClickListener { state.cancel() }
        findViewById<View>(R.id.share).setOnClickListener { visible.launch { share() } }
    }

    override fun onStart() {
        super.onStart()
        visible.launch { state.subject.collect(::showSubject) }
        visible.launch { state.phase.collect(::showPhase) }
    }

    override fun onStop() {
        // In the background the system slows the app down: what is measured there means nothing.
        if (!isChangingConfigurations) state.cancel()
        super.onStop()
    }

    private fun start(ready: Subject.Ready) {
        if (state.waysOf(ready).isEmpty()) {
            val formats = ready.bundle.formats.joinToString(words.text(R.string.list_separator)) { it.id }
            progress(words.text(R.string.benchmark_nothing, formats))
        } else {
            state.start(ready)
        }
    }

    // ---- what is measured -----------------------------------------------------------------------------------

    private fun showSubject(subject: Subject) {
        val ready = subject as? Subject.Ready
        findViewById<TextView>(R.id.subject).text = when (subject) {
            Subject.Opening -> words.text(R.string.model_opening)
            is Subject.None -> subject.text
            is Subject.Ready -> words.text(R.string.benchmark_subject, subject.name)
        }
        val targets = findViewById<ViewGroup>(R.id.targets)
        targets.removeAllViews()
        ready?.ways?.forEach { targets.addView(wayView(targets, ready, it)) }
        showPhase(state.phase.value)
    }

    private fun wayView(parent: ViewGroup, ready: Subject.Ready, way: Way): View {
        val view = LayoutInflater.from(this).inflate(R.layout.check, parent, false) as CheckBox
        val formats = way.formats.joinToString(words.text(R.string.list_separator)) { it.id }
        val engine = words.text(EngineIds.text(way.engine))
        val name = words.text(R.string.benchmark_target, formats, engine, words.text(EngineIds.text(way.accelerator)))
        view.text = if (way.problem == null) name else words.text(R.string.unavailable, name, way.problem)
        view.isEnabled = way.problem == null
        view.isChecked = way in state.waysOf(ready)
        view.setOnCheckedChangeListener { _, checked ->
            val before = state.waysOf(ready)
            state.chosen = if (checked) before + way else before - way
        }
        return view
    }

    private fun showRuns() {
        val group = findViewById<RadioGroup>(R.id.runs)
        for (runs in RUNS) {
            val button = LayoutInflater.from(this).inflate(R.layout.choice, group, false) as RadioButton
            button.id = View.generateViewId()
            button.text = words.count(R.plurals.benchmark_run_count, runs, runs)
            group.addView(button)
            if (runs == state.runs) group.check(button.id)
            button.setOnClickListener { state.runs = runs }
        }
    }

    // ---- how far it is --------------------------------------------------------------------------------------

    private fun showPhase(phase: BenchmarkPhase) {
        val running = phase as? BenchmarkPhase.Running
        val done = phase as? BenchmarkPhase.Done
        if (running != null) {
            window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        } else {
            window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        }
        findViewById<View>(R.id.start).isEnabled = running == null && state.subject.value is Subject.Ready
        findViewById<View>(R.id.cancel).isEnabled = running != null
        findViewById<View>(R.id.share).isEnabled = done?.report?.run != null
        val bar = findViewById<ProgressBar>(R.id.progress)
        bar.visibility = if (running == null) View.GONE else View.VISIBLE
        bar.progress = ((running?.share ?: 0.0) * bar.max).roundToInt()
        progress(
            when (phase) {
                BenchmarkPhase.Idle -> ""
                is BenchmarkPhase.Running -> phase.step?.let(::stepText).orEmpty()
                is BenchmarkPhase.Done -> words.text(R.string.benchmark_finished)
                BenchmarkPhase.Cancelled -> words.text(R.string.benchmark_cancelled)
                is BenchmarkPhase.Failed -> words.text(R.string.something_failed, phase.message)
            },
        )
        // Built once when it is done, and not for every step.
        if (done?.report != shown) {
            shown = done?.report
            report.show(shown)
        }
    }

    private fun stepText(step: BenchmarkStep): String = when (step) {
        is BenchmarkStep.Comparing ->
            words.text(
                R.string.benchmark_running_parity,
                outcomeText.title(step.target),
                minOf(step.done + 1, step.of),
                step.of,
            )
        is BenchmarkStep.Timing -> words.text(R.string.benchmark_running_latency, outcomeText.title(step.target))
    }

    /** Set only what has changed: a screen reader says whatever is set. */
    private fun progress(text: String) {
        val view = findViewById<TextView>(R.id.progress_text)
        if (view.text.toString() != text) view.text = text
    }

    private suspend fun share() {
        try {
            val file = withContext(Dispatchers.IO) { state.export() } ?: return
            val uri = ResultsProvider.uriOf(file)
            val intent =
                Intent(Intent.ACTION_SEND).setType(ResultsProvider.TYPE).putExtra(Intent.EXTRA_STREAM, uri)
                    .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
            // The chooser hands the right to read on to the app that is chosen.
            intent.clipData = ClipData.newRawUri(file.name, uri)
            startActivity(Intent.createChooser(intent, words.text(R.string.benchmark_share)))
        } catch (error: IOException) {
            progress(words.text(R.string.something_failed, error.message.orEmpty()))
        } catch (_: ActivityNotFoundException) {
            progress(words.text(R.string.benchmark_no_share))
        }
    }

    private companion object {
        val RUNS = listOf(100, 300, 1000)
    }
}
