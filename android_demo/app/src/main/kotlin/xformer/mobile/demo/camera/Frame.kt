package xformer.mobile.demo.camera

import android.media.Image

/**
 * One picture of the camera, until it is closed: the camera waits for its memory.
 *
 * @property image YUV_420_888, as the sensor lies.
 */
class Frame(val image: Image, private val lease: AutoCloseable) : AutoCloseable {
    override fun close() {
        image.close()
        lease.close()
    }
}
