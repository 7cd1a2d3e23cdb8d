package xformer.mobile.demo.live

/** What the last frames took. Not thread-safe. */
class FrameMeter(private val window: Int = 30) {
    private val finishedNs = ArrayDeque<Long>()
    private val inferenceNs = ArrayDeque<Long>()

    init {
        require(window >= 2) { "got a window of $window frames; a rate needs 2 and more" }
    }

    /** A frame was finished at [atNs], and its inference took [tookNs]; both of one clock that never goes back. */
    fun add(atNs: Long, tookNs: Long) {
        finishedNs.addLast(atNs)
        inferenceNs.addLast(tookNs)
        if (finishedNs.size > window) {
            finishedNs.removeFirst()
            inferenceNs.removeFirst()
        }
    }

    /** Frames a second over the last frames; null before the second one. */
    val framesPerSecond: Double?
        get() {
            val spanNs = if (finishedNs.size < 2) 0 else finishedNs.last() - finishedNs.first()
            return if (spanNs > 0) (finishedNs.size - 1) * NS_PER_SECOND / spanNs else null
        }

    /** The median inference time of the last frames in nanoseconds; null before the first one. */
    val medianInferenceNs: Double?
        get() {
            if (inferenceNs.isEmpty()) return null
            val ordered = inferenceNs.sorted()
            return (ordered[(ordered.size - 1) / 2] + ordered[ordered.size / 2]) / 2.0
        }

    /** Forget all frames: the camera or the model is another. */
    fun reset() {
        finishedNs.clear()
        inferenceNs.clear()
    }

    private companion object {
        const val NS_PER_SECOND = 1e9
    }
}
