package xformer.mobile.core

/** A prediction, and how long each step of it took, in nanoseconds. */
public class Timed(
    public val prediction: Prediction,
    public val preprocessNs: Long,
    public val inferenceNs: Long,
    public val postprocessNs: Long,
)

/**
 * From pictures to typed results: a bundle's rules around an opened engine.
 *
 * Blocks the caller's thread. May be used from any number of threads: pictures are fitted and results made side by
 * side, the engine runs one at a time. Closing waits for the run, and closes the engine; a later call is a
 * [UsageException].
 */
public class Predictor(public val bundle: Bundle, engine: Engine) : AutoCloseable {
    /** The engine, held to the manifest. */
    public val engine: Engine = engine.checkedBy(bundle)

    private val postprocess = bundle.postprocess()

    /**
     * What the model finds in an upright picture.
     *
     * @throws ImageException the picture can't be used.
     * @throws BundleException the outputs are not those declared, or not finite.
     * @throws EngineException the engine failed.
     * @throws UsageException it is closed.
     */
    public fun predict(image: RowSource): Prediction = predictTimed(image).prediction

    /**
     * Like [predict], with the times. [mapSize] is the size of a class map where it shall not be the picture's, such as
     * a preview's; other tasks ignore it.
     */
    public fun predictTimed(image: RowSource, mapSize: Size? = null): Timed {
        val start = System.nanoTime()
        val fitted = Preprocess.preprocess(image, bundle.imageSize, bundle.resizeRule)
        val preprocessed = System.nanoTime()
        val outputs = engine.run(fitted.image)
        val inferred = System.nanoTime()
        val prediction = if (mapSize != null && bundle.task == Task.SEGMENT) {
            postprocess.segmentAt(outputs, mapSize)
        } else {
            postprocess(outputs, fitted.fit)
        }
        val end = System.nanoTime()
        return Timed(prediction, preprocessed - start, inferred - preprocessed, end - inferred)
    }

    override fun close() {
        engine.close()
    }
}
