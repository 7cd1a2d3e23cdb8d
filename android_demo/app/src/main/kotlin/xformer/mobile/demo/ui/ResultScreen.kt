package xformer.mobile.demo.ui

import android.graphics.Bitmap
import android.os.SystemClock
import android.view.View
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import xformer.mobile.core.Rgb
import xformer.mobile.demo.R
import xformer.mobile.demo.geometry.ScaleMode
import xformer.mobile.demo.results.AnnouncementThrottle
import xformer.mobile.demo.results.Drawing
import xformer.mobile.demo.results.OverlayView
import xformer.mobile.demo.results.ResultPanel
import xformer.mobile.demo.results.ResultText

/** Words in the place of a picture, with a button that helps; [actionText] is a string's id. */
class Message(val text: String, val actionText: Int? = null, val action: () -> Unit = {})

/**
 * The views of a screen that shows a picture, what the model finds in it, and words where there is no picture: the
 * camera's screen and that of a chosen picture. It knows neither camera nor model, so that it can be shown without.
 */
class ResultScreen(root: View, private val mode: ScaleMode) {
    private val words = ResourceWords(root.resources)
    private val still = root.findViewById<ImageView>(R.id.still)
    private val overlay = root.findViewById<OverlayView>(R.id.overlay)
    private val messageView = root.findViewById<View>(R.id.message)
    private val messageText = root.findViewById<TextView>(R.id.message_text)
    private val messageAction = root.findViewById<Button>(R.id.message_action)
    private val bannerView = root.findViewById<TextView>(R.id.banner)
    private val figuresView = root.findViewById<TextView>(R.id.figures)
    private val panel = ResultPanel(root.findViewById(R.id.rows))
    private val spoken = ResultText(words)
    private val throttle = AnnouncementThrottle(QUIET_NS)

    /** Show words instead of the picture; null shows the picture. */
    fun message(message: Message?) {
        messageView.visibility = if (message == null) View.GONE else View.VISIBLE
        if (message == null) return
        // Setting the same text again would let a screen reader say it again.
        if (messageText.text.toString() != message.text) messageText.text = message.text
        val label = message.actionText
        messageAction.visibility = if (label == null) View.GONE else View.VISIBLE
        if (label != null) messageAction.setText(label)
        messageAction.setOnClickListener { message.action() }
    }

    /** Show a warning, a string's id, above the results; null shows none. */
    fun banner(text: Int?) {
        bannerView.visibility = if (text == null) View.GONE else View.VISIBLE
        if (text != null) bannerView.setText(text)
    }

    /** Engine and times, in words. */
    fun figures(text: String) {
        figuresView.text = text
    }

    /** Show a picture that stands still; null shows none. */
    fun still(picture: Bitmap?) {
        still.setImageBitmap(picture)
        still.visibility = if (picture == null) View.GONE else View.VISIBLE
    }

    /** Show a result over the picture and below it, and announce it now and then; null takes it away. */
    fun result(drawing: Drawing?, palette: List<Rgb>) {
        overlay.show(drawing, mode)
        panel.show(drawing?.prediction, palette)
        if (drawing == null) {
            throttle.reset()
            overlay.importantForAccessibility = View.IMPORTANT_FOR_ACCESSIBILITY_NO
        } else {
            overlay.importantForAccessibility = View.IMPORTANT_FOR_ACCESSIBILITY_YES
            throttle.next(spoken.of(drawing.prediction), SystemClock.elapsedRealtimeNanos())
                ?.let { overlay.contentDescription = it }
        }
    }

    private companion object {
        /** Nothing is announced for so long after an announcement. */
        const val QUIET_NS = 4_000_000_000L
    }
}
