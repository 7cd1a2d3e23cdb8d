package xformer.mobile

import android.content.Context
import android.graphics.Bitmap
import android.media.Image
import java.io.File
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleException
import xformer.mobile.core.Classifications
import xformer.mobile.core.ClassMap
import xformer.mobile.core.Detections
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineException
import xformer.mobile.core.EngineOptions
import xformer.mobile.core.EngineReport
import xformer.mobile.core.ImageException
import xformer.mobile.core.Prediction
import xformer.mobile.core.Predictor
import xformer.mobile.core.RgbImage
import xformer.mobile.core.RowSource
import xformer.mobile.core.Size
import xformer.mobile.core.Task
import xformer.mobile.core.Timed
import xformer.mobile.core.UsageException

/**
 * A bundle that is opened in an engine: from bitmaps, pictures and camera frames to typed results.
 *
 *     XFormer.fromAssets(context, "bundles/classify").use { xformer ->
 *         val best = xformer.classify(bitmap).first()
 *     }
 *
 * All work is done on a thread of its own, never on the caller's; calls from several coroutines are queued. A call that
 * is cancelled while it waits does nothing; one that has begun is brought to its end, and only then does the caller go
 * on: a bitmap or camera image may be recycled or closed as soon as the call has returned or thrown.
 *
 * Every call may throw [ImageException] (the picture can't be used), [BundleException] (the model returned what it
 * should not), [EngineException] (the engine failed) and [UsageException] (it is closed, or the bundle is for another
 * task).
 */
public class XFormer private constructor(private val predictor: Predictor, private val worker: Worker) : AutoCloseable {
    /** What is run. */
    public val bundle: Bundle get() = predictor.bundle

    /** The engine, and what it really uses. */
    public val report: EngineReport get() = predictor.engine.report

    /** The bytes of the last camera frame, used again for the next one; only the worker touches it. */
    private var frameBytes = ByteArray(0)

    /** The most probable classes of a bitmap; see [Pictures.rows] for what a bitmap is taken for. */
    public suspend fun classify(bitmap: Bitmap): Classifications = of(Task.CLASSIFY) { predict(Pictures.rows(bitmap)) }

    /** The most probable classes of an upright picture. */
    public suspend fun classify(image: RowSource): Classifications = of(Task.CLASSIFY) { predict(image) }

    /** The objects in a bitmap, boxes in its pixels. */
    public suspend fun detect(bitmap: Bitmap): Detections = of(Task.DETECT) { predict(Pictures.rows(bitmap)) }

    /** The objects in an upright picture, boxes in its pixels. */
    public suspend fun detect(image: RowSource): Detections = of(Task.DETECT) { predict(image) }

    /** The class of each pixel of a bitmap. */
    public suspend fun segment(bitmap: Bitmap): ClassMap = of(Task.SEGMENT) { predict(Pictures.rows(bitmap)) }

    /** The class of each pixel of an upright picture. */
    public suspend fun segment(image: RowSource): ClassMap = of(Task.SEGMENT) { predict(image) }

    /** The result for a bitmap, whatever the task is. */
    public suspend fun predict(bitmap: Bitmap): Prediction = worker.run { predictor.predict(Pictures.rows(bitmap)) }

    /** The result for an upright picture, whatever the task is. */
    public suspend fun predict(image: RowSource): Prediction = worker.run { predictor.predict(image) }

    /**
     * The result for a camera's frame in YUV_420_888, which must stay open until the call returns; turned and mirrored
     * as [YuvToRgb.convert] says. Boxes are in the upright frame's pixels.
     */
    public suspend fun predict(image: Image, rotationDegrees: Int, mirrored: Boolean = false): Prediction =
        predictTimed(image, rotationDegrees, mirrored).prediction

    /**
     * Like [predict], with the time of each step. [mapSize] is the size of a class map where it shall not be the
     * picture's, such as a preview's; other tasks ignore it.
     */
    public suspend fun predictTimed(image: RowSource, mapSize: Size? = null): Timed =
        worker.run { predictor.predictTimed(image, mapSize) }

    /** Like [predict] of a camera's frame, with the time of each step; the conversion to RGB is of the first. */
    public suspend fun predictTimed(
        image: Image,
        rotationDegrees: Int,
        mirrored: Boolean = false,
        mapSize: Size? = null,
    ): Timed = timedFrame(mapSize) { reuse -> YuvToRgb.convert(image, rotationDegrees, mirrored, reuse) }

    /** Like [predictTimed] of a camera's frame; for frames that are not in an [Image]. */
    public suspend fun predictTimed(
        frame: YuvFrame,
        rotationDegrees: Int,
        mirrored: Boolean = false,
        mapSize: Size? = null,
    ): Timed = timedFrame(mapSize) { reuse -> YuvToRgb.convert(frame, rotationDegrees, mirrored, reuse = reuse) }

    /** [convert] is given the bytes of the frame before: a camera's frames are of one size. */
    private suspend fun timedFrame(mapSize: Size?, convert: (ByteArray) -> RgbImage): Timed = worker.run {
        val start = System.nanoTime()
        val image = convert(frameBytes)
        frameBytes = image.bytes
        val converted = System.nanoTime() - start
        val timed = predictor.predictTimed(image, mapSize)
        Timed(timed.prediction, converted + timed.preprocessNs, timed.inferenceNs, timed.postprocessNs)
    }

    /** Runs the model once, on grey: the first run of most engines is slower. */
    public suspend fun warmUp() {
        worker.run { warmUp(predictor) }
    }

    private suspend inline fun <reified T : Prediction> of(
        task: Task,
        crossinline work: Predictor.() -> Prediction,
    ): T {
        val own = bundle.task
        if (own != task) {
            throw UsageException("the bundle is for the task ${own.id}, not ${task.id}; call ${own.id} or predict")
        }
        return worker.run { predictor.work() as T }
    }

    /**
     * Frees the model when the call that has begun, if any, is done; does not wait for that. Calls that have not begun
     * are a [UsageException]. Closing twice is fine.
     */
    override fun close() {
        worker.finish { predictor.close() }
    }

    public companion object {
        /**
         * Opens a bundle.
         *
         * @throws BundleException the artifact is missing, is not the manifest's, or is refused by the engine.
         * @throws EngineException the engine or the accelerator is not there, or fails.
         * @throws UsageException there is no engine for the options, or a number of threads that can't be.
         */
        public suspend fun open(bundle: Bundle, options: XFormerOptions = XFormerOptions()): XFormer {
            val (kind, format, accelerator) = plan(bundle.formats, options)
            return open(bundle, options.warmUp) {
                kind.open(bundle, bundle.artifact(format), EngineOptions(options.threads, accelerator))
            }
        }

        /** Opens a bundle in the engine that [engine] opens, on the thread that will use it. */
        internal suspend fun open(bundle: Bundle, warmUp: Boolean, engine: () -> Engine): XFormer {
            val worker = Worker()
            var opened: Predictor? = null
            try {
                worker.run {
                    val predictor = Predictor(bundle, engine())
                    opened = predictor
                    if (warmUp) warmUp(predictor)
                }
                return XFormer(checkNotNull(opened), worker)
            } catch (error: Throwable) { // cancelled, too
                worker.finish { opened?.close() }
                throw error
            }
        }

        /** Opens the bundle in a directory; see the other [open]. */
        public suspend fun open(directory: File, options: XFormerOptions = XFormerOptions()): XFormer =
            open(withContext(Dispatchers.IO) { Bundle.open(directory) }, options)

        /**
         * Opens a bundle of the app's assets: [name] is its directory there, such as "bundles/classify".
         *
         * It is unpacked once, to the directory of the app that is not backed up, and checked; unpackings of the same
         * name from older versions of the app are removed.
         *
         * @throws BundleException as of [open], and where there is no such bundle or no room for it.
         */
        public suspend fun fromAssets(
            context: Context,
            name: String,
            options: XFormerOptions = XFormerOptions(),
        ): XFormer = open(unpack(context, name), options)

        /** Unpacks a bundle of the app's assets, as [fromAssets] does, and opens its manifest. */
        public suspend fun unpack(context: Context, name: String): Bundle = withContext(Dispatchers.IO) {
            val assets = context.assets
            AssetBundles({ assets.list(it)?.toList().orEmpty() }, assets::open, context.noBackupFilesDir).unpack(name)
        }

        /** Every way to run a bundle on this device, with the reason where one can't be taken; for an app's switch. */
        public suspend fun engines(bundle: Bundle): List<EngineOffer> =
            withContext(Dispatchers.IO) { offers(bundle.formats) }

        private fun warmUp(predictor: Predictor) {
            val size = predictor.bundle.imageSize
            predictor.engine.run(RgbImage(size.width, size.height, ByteArray(3 * size.width * size.height) { 114 }))
        }
    }
}
