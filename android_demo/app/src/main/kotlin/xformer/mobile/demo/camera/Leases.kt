package xformer.mobile.demo.camera

/**
 * Closes a resource when it is closed here *and* nobody uses it any more: an image reader must outlive the analysis of
 * its last image, for closing it takes the image's memory away. Thread-safe.
 */
class Leases(private val release: () -> Unit) : AutoCloseable {
    private var lent = 0
    private var closed = false
    private var released = false

    /** Something that uses the resource until it is closed; null after [close]. Closing it twice is fine. */
    fun lease(): AutoCloseable? = synchronized(this) {
        if (closed) null else Lease().also { lent += 1 }
    }

    /** Lend no more, and release the resource as soon as nobody uses it. */
    override fun close() {
        change { closed = true }
    }

    private fun change(change: () -> Unit) {
        val last = synchronized(this) {
            change()
            (closed && lent == 0 && !released).also { if (it) released = true }
        }
        if (last) release()
    }

    private inner class Lease : AutoCloseable {
        private var returned = false

        override fun close() = change {
            if (!returned) lent -= 1
            returned = true
        }
    }
}
