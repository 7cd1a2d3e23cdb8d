package xformer.mobile.demo.live

import android.graphics.Bitmap
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import xformer.mobile.XFormer
import xformer.mobile.core.ClassMap
import xformer.mobile.core.Size
import xformer.mobile.demo.camera.Frame
import xformer.mobile.demo.geometry.CameraGeometry
import xformer.mobile.demo.results.ColoredMap
import xformer.mobile.demo.results.Drawing

/** A frame, and how it lies on the screen. */
class PlacedFrame(val frame: Frame, val geometry: CameraGeometry) : AutoCloseable by frame

/** From a camera's frame to what is drawn over it. One frame at a time. */
class FrameAnalysis(private val model: XFormer) {
    private val palette = model.bundle.postprocess().palette

    /**
     * What the model finds in a frame; the frame may be closed as soon as this returns.
     *
     * @throws xformer.mobile.core.XFormerException the frame or the model can't be used.
     */
    suspend fun analyze(placed: PlacedFrame): LiveResult {
        val image = placed.frame.image
        val shown = image.cropRect
        val source = placed.geometry.upright(Size(shown.width(), shown.height()))
        // Smoothed when it is drawn: a class map as fine as the frame would take longer than the model.
        val mapSize = Size((source.width + 1) / 2, (source.height + 1) / 2)
        val timed = model.predictTimed(image, placed.geometry.uprightDegrees, mapSize = mapSize)
        val map = (timed.prediction as? ClassMap)?.let {
            withContext(Dispatchers.Default) { bitmap(ColoredMap.of(it, palette)) }
        }
        return LiveResult(Drawing(source, placed.geometry.front, timed.prediction, map), palette, timed.inferenceNs)
    }

    private fun bitmap(map: ColoredMap): Bitmap =
        Bitmap.createBitmap(map.argb, map.width, map.height, Bitmap.Config.ARGB_8888)
}
