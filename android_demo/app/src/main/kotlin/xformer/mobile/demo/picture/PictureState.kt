package xformer.mobile.demo.picture

import android.content.ContentResolver
import android.graphics.Bitmap
import android.net.Uri
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancel
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import xformer.mobile.Picture
import xformer.mobile.Pictures
import xformer.mobile.XFormer
import xformer.mobile.core.ClassMap
import xformer.mobile.core.EngineReport
import xformer.mobile.core.Manifest
import xformer.mobile.core.Rgb
import xformer.mobile.core.Size
import xformer.mobile.demo.Demo
import xformer.mobile.demo.R
import xformer.mobile.demo.model.Choice
import xformer.mobile.demo.model.ModelSlot
import xformer.mobile.demo.model.SlotState
import xformer.mobile.demo.results.ColoredMap
import xformer.mobile.demo.results.Drawing

/** What the picture's screen shows. */
sealed interface PicturePhase {
    /** No picture is chosen. */
    data object Empty : PicturePhase

    /** A picture is being read and looked at. */
    data object Working : PicturePhase

    /** [text] says why there is no result. */
    data class Failed(val text: String) : PicturePhase

    /**
     * A picture and what was found in it.
     *
     * @property picture small enough to be shown; the drawing is in the pixels of the picture itself.
     */
    class Shown(
        val picture: Bitmap,
        val drawing: Drawing,
        val palette: List<Rgb>,
        val engine: EngineReport,
        val weights: Manifest.WeightsSource,
        val inferenceNs: Long,
    ) : PicturePhase
}

/** What the picture's screen keeps while the device is turned. For the main thread. */
class PictureState(private val demo: Demo, private val resolver: ContentResolver) : AutoCloseable {
    private val scope = CoroutineScope(Dispatchers.Default)
    private val models = ModelSlot<Choice, XFormer>(Dispatchers.IO, demo::open)
    private val phases = MutableStateFlow<PicturePhase>(PicturePhase.Empty)
    private var job: Job? = null

    /** Whether the model is not needed any more once the picture that is being looked at is done. */
    @Volatile
    private var releasing = false

    val phase: StateFlow<PicturePhase> = phases.asStateFlow()

    /** The picture that was chosen last. */
    var uri: Uri? = null
        private set

    /** Look at a picture instead of the one before. */
    fun look(chosen: Uri) {
        uri = chosen
        job?.cancel()
        phases.value = PicturePhase.Working
        releasing = false
        models.want(demo.choice)
        job = scope.launch {
            val phase = lookedAt(chosen)
            ensureActive() // else another picture was chosen meanwhile
            phases.value = phase
            if (releasing) models.want(null)
        }
    }

    /** Free the model's memory, after the picture that is being looked at; the next one opens it again. */
    fun release() {
        releasing = true
        if (job?.isActive != true) models.want(null)
    }

    override fun close() {
        scope.cancel()
        models.close()
    }

    private suspend fun lookedAt(chosen: Uri): PicturePhase = try {
        when (val model = models.state.first { it is SlotState.Ready || it is SlotState.Failed }) {
            is SlotState.Ready -> shown(chosen, model.model)
            is SlotState.Failed -> PicturePhase.Failed(demo.problem(model.error))
            else -> PicturePhase.Empty
        }
    } catch (error: CancellationException) {
        throw error
    } catch (error: Exception) {
        failed(error, chosen)
    } catch (_: OutOfMemoryError) {
        PicturePhase.Failed(demo.words.text(R.string.picture_too_large))
    }

    private suspend fun shown(chosen: Uri, model: XFormer): PicturePhase =
        Pictures.decode(resolver, chosen, MOST_PIXELS, subsample = true).use { picture ->
            val preview = picture.preview(MOST_SIDE)
            val timed = model.predictTimed(picture, mapSize(picture))
            val palette = model.bundle.postprocess().palette
            val map = (timed.prediction as? ClassMap)?.let { ColoredMap.of(it, palette) }
            val colors = map?.let { Bitmap.createBitmap(it.argb, it.width, it.height, Bitmap.Config.ARGB_8888) }
            PicturePhase.Shown(
                preview,
                Drawing(Size(picture.width, picture.height), mirrored = false, timed.prediction, colors),
                palette,
                model.report,
                model.bundle.manifest.model.weights.source,
                timed.inferenceNs,
            )
        }

    /** The picture's shape, as large as it is drawn. */
    private fun mapSize(picture: Picture): Size {
        val longer = maxOf(picture.width, picture.height).toLong()
        val side = minOf(longer, ColoredMap.MOST_SIDE.toLong())
        fun scaled(length: Int) = maxOf(1, (length * side / longer).toInt())
        return Size(scaled(picture.width), scaled(picture.height))
    }

    /** Where the message names the picture, what comes after that is said: its address means nothing to people. */
    private fun failed(error: Exception, chosen: Uri): PicturePhase {
        val message = error.message ?: error.javaClass.simpleName
        return PicturePhase.Failed(demo.words.text(R.string.picture_failed, message.substringAfter("$chosen: ")))
    }

    private companion object {
        /** Pictures of more pixels are read at a half, a quarter, ... of their size. */
        const val MOST_PIXELS = 32_000_000

        /** The longer side of what is shown. */
        const val MOST_SIDE = 2048
    }
}
