package xformer.mobile.demo.results

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Matrix
import android.graphics.Paint
import android.graphics.RectF
import android.text.TextPaint
import android.text.TextUtils
import android.util.AttributeSet
import android.view.View
import xformer.mobile.core.Classifications
import xformer.mobile.core.Detections
import xformer.mobile.core.Prediction
import xformer.mobile.core.Size
import xformer.mobile.demo.R
import xformer.mobile.demo.geometry.LabelLayout
import xformer.mobile.demo.geometry.Rectangle
import xformer.mobile.demo.geometry.ScaleMode
import xformer.mobile.demo.geometry.ViewTransform
import xformer.mobile.demo.ui.Figures
import xformer.mobile.demo.ui.ResourceWords

/**
 * What is drawn over a picture.
 *
 * @property source the size of the upright picture; boxes are in its pixels.
 * @property mirrored whether the picture is shown with left and right exchanged.
 * @property classMap colors of any size that cover the whole picture; null but for class maps.
 */
class Drawing(val source: Size, val mirrored: Boolean, val prediction: Prediction, val classMap: Bitmap?)

/** Draws a result over the picture that lies below it: the best class, boxes with their labels, or a class map. */
class OverlayView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val words = ResourceWords(resources)
    private val lineWidth = resources.getDimension(R.dimen.box_line)
    private val padding = resources.getDimension(R.dimen.gap_small)
    private val labelText = TextPaint(Paint.ANTI_ALIAS_FLAG).apply {
        color = context.getColor(R.color.on_label)
        textSize = resources.getDimension(R.dimen.text_label)
    }
    private val labelFill = Paint().apply { color = context.getColor(R.color.label) }
    private val boxLine = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        style = Paint.Style.STROKE
        strokeWidth = lineWidth
    }
    private val mapPaint = Paint(Paint.FILTER_BITMAP_FLAG)
    private var drawing: Drawing? = null
    private var mode = ScaleMode.CROP

    /** Draw [drawing], or nothing; [mode] is how the picture below lies in this view. */
    fun show(drawing: Drawing?, mode: ScaleMode) {
        this.drawing = drawing
        this.mode = mode
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        val drawn = drawing ?: return
        if (width == 0 || height == 0) return
        val transform = ViewTransform(drawn.source, Size(width, height), mode, drawn.mirrored)
        drawn.classMap?.let { drawMap(canvas, it, transform) }
        when (val found = drawn.prediction) {
            is Detections -> drawBoxes(canvas, found, transform)
            is Classifications -> drawBest(canvas, found, transform)
            else -> Unit
        }
    }

    private fun drawMap(canvas: Canvas, map: Bitmap, transform: ViewTransform) {
        val matrix = Matrix()
        matrix.setValues(transform.affine.values())
        matrix.preScale(transform.source.width / map.width.toFloat(), transform.source.height / map.height.toFloat())
        canvas.drawBitmap(map, matrix, mapPaint)
    }

    private fun drawBoxes(canvas: Canvas, found: Detections, transform: ViewTransform) {
        val boxes = found.map { transform.map(Rectangle(it.box.x1, it.box.y1, it.box.x2, it.box.y2)) }
        val texts = found.map { words.text(R.string.result_row, it.label, Figures.percent(words, it.score.toDouble())) }
        for ((detection, box) in found.zip(boxes)) {
            val color = ClassColors.argb(ClassColors.of(detection.index))
            boxLine.color = labelFill.color
            boxLine.strokeWidth = 2 * lineWidth // A dark rim: the color is seen on every background.
            canvas.drawRect(rectF(box), boxLine)
            boxLine.color = color
            boxLine.strokeWidth = lineWidth
            canvas.drawRect(rectF(box), boxLine)
        }
        // The best is placed first and drawn last.
        val places = LabelLayout.place(boxes, texts.map(::sizeOf), bounds())
        for ((text, place) in texts.zip(places).asReversed()) drawLabel(canvas, text, place)
    }

    private fun drawBest(canvas: Canvas, found: Classifications, transform: ViewTransform) {
        val best = found.firstOrNull() ?: return
        val text = words.text(R.string.result_row, best.label, Figures.percent(words, best.probability))
        val places = LabelLayout.place(listOf(transform.picture), listOf(sizeOf(text)), bounds())
        drawLabel(canvas, text, places.single())
    }

    private fun drawLabel(canvas: Canvas, text: String, place: Rectangle) {
        canvas.drawRect(rectF(place), labelFill)
        val fitted = TextUtils.ellipsize(text, labelText, place.width - 2 * padding, TextUtils.TruncateAt.END)
        val baseline = place.top + padding - labelText.fontMetrics.ascent
        canvas.drawText(fitted, 0, fitted.length, place.left + padding, baseline, labelText)
    }

    private fun sizeOf(text: String): Pair<Float, Float> {
        val metrics = labelText.fontMetrics
        return Pair(labelText.measureText(text) + 2 * padding, metrics.descent - metrics.ascent + 2 * padding)
    }

    private fun bounds(): Rectangle = Rectangle(0f, 0f, width.toFloat(), height.toFloat())

    private fun rectF(rectangle: Rectangle): RectF =
        RectF(rectangle.left, rectangle.top, rectangle.right, rectangle.bottom)
}
