package xformer.mobile.demo.live

import kotlinx.coroutines.Dispatchers
import xformer.mobile.XFormer
import xformer.mobile.core.Rgb
import xformer.mobile.demo.Demo
import xformer.mobile.demo.model.Choice
import xformer.mobile.demo.model.ModelSlot
import xformer.mobile.demo.results.Drawing

/**
 * A frame's result, ready to be drawn.
 *
 * @property palette of a class map.
 * @property inferenceNs how long the engine took.
 */
class LiveResult(val drawing: Drawing, val palette: List<Rgb>, val inferenceNs: Long)

/** What the camera's screen keeps while the device is turned. */
class LiveState(val demo: Demo) : AutoCloseable {
    /** The model that looks at the frames. */
    val models = ModelSlot<Choice, XFormer>(Dispatchers.IO, demo::open)

    /** The times of the last frames. */
    val meter = FrameMeter()

    /** Which of the device's cameras; beyond the last one it begins anew. */
    var camera = 0

    /** Whether the user, or the system for them, has answered the question for the camera since the screen was opened. */
    var answered = false

    override fun close() {
        models.close()
    }
}
