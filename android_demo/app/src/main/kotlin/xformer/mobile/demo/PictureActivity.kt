package xformer.mobile.demo

import android.content.ActivityNotFoundException
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.view.View
import kotlinx.coroutines.launch
import xformer.mobile.demo.geometry.ScaleMode
import xformer.mobile.demo.model.Banner
import xformer.mobile.demo.model.EngineText
import xformer.mobile.demo.picture.PicturePhase
import xformer.mobile.demo.picture.PictureState
import xformer.mobile.demo.ui.Figures
import xformer.mobile.demo.ui.Message
import xformer.mobile.demo.ui.ResourceWords
import xformer.mobile.demo.ui.ResultScreen
import xformer.mobile.demo.ui.RetainingActivity
import xformer.mobile.demo.ui.keepClearOfBars

/** A picture that the user chooses, with what the model finds in it. */
class PictureActivity : RetainingActivity<PictureState>() {
    private lateinit var screen: ResultScreen
    private val words by lazy { ResourceWords(resources) }

    override fun createState() = PictureState(Demo(this), applicationContext.contentResolver)

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.activity_picture)
        val root = findViewById<View>(R.id.root)
        root.keepClearOfBars()
        screen = ResultScreen(root, ScaleMode.LETTERBOX)
        findViewById<View>(R.id.choose_picture).setOnClickListener { choose() }
        // The system may have ended the app meanwhile; the right to read the picture is still there.
        if (state.uri == null) saved?.getString(PICTURE)?.let { state.look(Uri.parse(it)) }
    }

    override fun onSaveInstanceState(saved: Bundle) {
        super.onSaveInstanceState(saved)
        state.uri?.let { saved.putString(PICTURE, it.toString()) }
    }

    override fun onStart() {
        super.onStart()
        visible.launch { state.phase.collect(::show) }
    }

    override fun onStop() {
        if (!isChangingConfigurations) state.release()
        super.onStop()
    }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        state.release()
    }

    private fun choose() {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
        try {
            startActivityForResult(intent, 0)
        } catch (_: ActivityNotFoundException) {
            screen.message(Message(words.text(R.string.file_no_app)))
        }
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        val chosen = data?.data
        if (result == RESULT_OK && chosen != null) state.look(chosen)
    }

    private fun show(phase: PicturePhase) {
        val shown = phase as? PicturePhase.Shown
        screen.message(
            when (phase) {
                PicturePhase.Empty -> Message(words.text(R.string.picture_none), R.string.choose_picture, ::choose)
                PicturePhase.Working -> Message(words.text(R.string.picture_working))
                is PicturePhase.Failed -> Message(phase.text, R.string.choose_picture, ::choose)
                is PicturePhase.Shown -> null
            },
        )
        screen.still(shown?.picture)
        screen.banner(shown?.let { Banner.of(it.weights) })
        screen.figures(shown?.let(::figures).orEmpty())
        screen.result(shown?.drawing, shown?.palette.orEmpty())
    }

    private fun figures(shown: PicturePhase.Shown): String = words.text(
        R.string.picture_figures,
        EngineText.of(shown.engine, words),
        shown.drawing.source.width,
        shown.drawing.source.height,
        Figures.milliseconds(words, shown.inferenceNs.toDouble()),
    )

    private companion object {
        const val PICTURE = "picture"
    }
}
