package xformer.mobile.demo

import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.view.View
import android.view.WindowManager
import android.widget.TextView
import kotlinx.coroutines.launch
import xformer.mobile.demo.benchmark.BenchmarkStep
import xformer.mobile.demo.benchmark.HeadlessArguments
import xformer.mobile.demo.benchmark.HeadlessPhase
import xformer.mobile.demo.benchmark.HeadlessRuns
import xformer.mobile.demo.benchmark.HeadlessState
import xformer.mobile.demo.benchmark.OutcomeText
import xformer.mobile.demo.ui.ResourceWords
import xformer.mobile.demo.ui.RetainingActivity
import xformer.mobile.demo.ui.keepClearOfBars

/**
 * A benchmark for device farms and scripts: started over adb with [HeadlessArguments] as extras, or by a game loop
 * test. It must stay on the screen, for only there it gets the fast processors.
 */
class HeadlessActivity : RetainingActivity<HeadlessState>() {
    private val words by lazy { ResourceWords(resources) }
    private val outcomeText by lazy { OutcomeText(words) }
    private val isGameLoop get() = intent.action == GAME_LOOP
    private val isClosing get() = isGameLoop || intent.getBooleanExtra(CLOSE, false)

    override fun createState(): HeadlessState {
        val resolver = applicationContext.contentResolver
        val state = HeadlessState(Demo(this), getExternalFilesDir(null), resolver::openOutputStream)
        if (isGameLoop) state.start(emptyMap(), intent.data) else state.start(arguments(intent), null)
        return state
    }

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.activity_headless)
        findViewById<View>(R.id.root).keepClearOfBars()
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        // Devices of a farm may be locked.
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.O_MR1) {
            setShowWhenLocked(true)
            setTurnScreenOn(true)
        }
    }

    override fun onStart() {
        super.onStart()
        visible.launch { HeadlessRuns.phase.collect(::show) }
    }

    override fun onNewIntent(next: Intent) {
        super.onNewIntent(next)
        intent = next
        if (isGameLoop) state.start(emptyMap(), next.data) else state.start(arguments(next), null)
    }

    override fun onStop() {
        if (!isChangingConfigurations) state.close()
        super.onStop()
    }

    private fun show(phase: HeadlessPhase) {
        val text = when (phase) {
            HeadlessPhase.Idle -> ""
            is HeadlessPhase.Running -> words.text(R.string.headless_running, phase.step?.let(::stepText).orEmpty())
            is HeadlessPhase.Done -> phase.status.toLogLine()
        }
        val view = findViewById<TextView>(R.id.status)
        if (view.text.toString() != text) view.text = text
        if (phase is HeadlessPhase.Done && isClosing) finish()
    }

    private fun stepText(step: BenchmarkStep): String = outcomeText.title(step.target)

    companion object {
        /** An extra, true where the activity is to close when the benchmark has ended. */
        const val CLOSE = "close"

        private const val GAME_LOOP = "com.google.intent.action.TEST_LOOP"

        /** The arguments among an intent's extras. What is no argument is kept too, to be refused. */
        private fun arguments(intent: Intent): Map<String, Any?> {
            val extras = intent.extras ?: return emptyMap()
            @Suppress("DEPRECATION") // There is no other way to read an extra whose type is not known.
            return extras.keySet().minus(CLOSE).associateWith { extras.get(it) }
        }
    }
}
