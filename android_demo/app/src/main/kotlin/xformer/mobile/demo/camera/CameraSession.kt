package xformer.mobile.demo.camera

import android.graphics.ImageFormat
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.params.OutputConfiguration
import android.hardware.camera2.params.SessionConfiguration
import android.media.ImageReader
import android.os.Build
import android.os.Handler
import android.os.HandlerThread
import android.view.Surface
import java.util.concurrent.Semaphore
import java.util.concurrent.TimeUnit
import xformer.mobile.demo.geometry.StreamSizes

/**
 * One open camera that shows its pictures on a texture and hands out the same pictures as frames.
 *
 * Everything happens on a thread of its own; so are the callbacks. After [close] there are none. Sessions wait for each
 * other: most phones can't open the front camera while the back one is being closed, and the system refuses it to the
 * app as it would to another.
 *
 * @param onFrame takes each frame over: it must close it, soon.
 * @param onProblem there will be no more frames; the camera is closed.
 * @param turn is held while a camera is opened, open or being closed.
 */
class CameraSession(
    private val manager: CameraManager,
    private val camera: CameraChoice,
    private val sizes: StreamSizes,
    texture: SurfaceTexture,
    private val onFrame: (Frame) -> Unit,
    private val onProblem: (CameraProblem) -> Unit,
    private val turn: Semaphore = TURN,
) : AutoCloseable {
    private val thread = HandlerThread("camera").apply { start() }
    private val handler = Handler(thread.looper)
    private val reader = ImageReader.newInstance(
        sizes.analysis.width,
        sizes.analysis.height,
        ImageFormat.YUV_420_888,
        IMAGES,
    )
    private val leases = Leases(reader::close)
    private val preview: Surface

    /** Set before [end] is reached, for a thread that waits for its turn. */
    @Volatile
    private var leaving = false

    // Only used on the thread.
    private var device: CameraDevice? = null
    private var isTurn = false
    private var opening = false
    private var ended = false

    init {
        texture.setDefaultBufferSize(sizes.preview.width, sizes.preview.height)
        preview = Surface(texture)
        reader.setOnImageAvailableListener({ deliver() }, handler)
        handler.post { attempt { open() } }
    }

    /** Close the camera. Returns at once; the camera is free for others a little later. */
    override fun close() {
        leaving = true
        handler.post { end(null) }
    }

    // The permission was asked for before; that it is gone is caught.
    @Suppress("MissingPermission")
    private fun open() {
        isTurn = turn.tryAcquire(PATIENCE_S, TimeUnit.SECONDS)
        if (leaving) return
        if (!isTurn) return end(CameraProblem.IN_USE)
        manager.openCamera(camera.id, Callback(), handler)
        opening = true
    }

    private inner class Callback : CameraDevice.StateCallback() {
        override fun onOpened(opened: CameraDevice) {
            opening = false
            if (ended) {
                opened.close()
                leave()
            } else {
                device = opened
                attempt { configure(opened) }
            }
        }

        override fun onDisconnected(gone: CameraDevice) = lost(gone, CameraProblem.DISCONNECTED)

        override fun onError(failed: CameraDevice, error: Int) = lost(failed, CameraProblem.ofError(error))

        private fun lost(camera: CameraDevice, problem: CameraProblem) {
            opening = false
            camera.close()
            if (ended) leave() else end(problem)
        }
    }

    private fun configure(opened: CameraDevice) {
        val surfaces = listOf(preview, reader.surface)
        val callback = object : CameraCaptureSession.StateCallback() {
            override fun onConfigured(session: CameraCaptureSession) {
                if (!ended) attempt { repeat(opened, session, surfaces) }
            }

            override fun onConfigureFailed(session: CameraCaptureSession) = end(CameraProblem.NO_FORMAT)
        }
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) {
            val outputs = surfaces.map(::OutputConfiguration)
            opened.createCaptureSession(
                SessionConfiguration(SessionConfiguration.SESSION_REGULAR, outputs, { handler.post(it) }, callback),
            )
        } else {
            @Suppress("DEPRECATION")
            opened.createCaptureSession(surfaces, callback, handler)
        }
    }

    private fun repeat(opened: CameraDevice, session: CameraCaptureSession, surfaces: List<Surface>) {
        val request = opened.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
        surfaces.forEach(request::addTarget)
        session.setRepeatingRequest(request.build(), null, handler)
    }

    private fun deliver() {
        val lease = leases.lease() ?: return
        val image = try {
            reader.acquireLatestImage()
        } catch (_: IllegalStateException) {
            null // All images are in use; this one is dropped.
        }
        if (image == null) lease.close() else onFrame(Frame(image, lease))
    }

    /** Whatever the camera service throws, at any of its calls, ends the session with words. */
    private fun attempt(action: () -> Unit) {
        try {
            action()
        } catch (error: CameraAccessException) {
            end(CameraProblem.ofReason(error.reason))
        } catch (_: SecurityException) {
            end(CameraProblem.NO_PERMISSION)
        } catch (_: IllegalArgumentException) {
            end(CameraProblem.NO_FORMAT)
        } catch (_: IllegalStateException) {
            end(CameraProblem.DISCONNECTED)
        } catch (_: UnsupportedOperationException) {
            end(CameraProblem.NO_FORMAT)
        }
    }

    private fun end(problem: CameraProblem?) {
        if (ended) return
        ended = true
        device?.close()
        device = null
        preview.release()
        leases.close()
        // A camera that is still being opened is closed when it is: until then the thread must listen.
        if (!opening) leave()
        if (problem != null) onProblem(problem)
    }

    /** The camera is closed: let the next one have its turn, and end the thread. */
    private fun leave() {
        if (isTurn) turn.release()
        isTurn = false
        thread.quitSafely()
    }

    private companion object {
        /** Of all sessions of the app. */
        val TURN = Semaphore(1)

        /** A camera that takes longer to close will not do so any more. */
        const val PATIENCE_S = 5L

        /** One that is analyzed, one that waits, one that is taken while the camera fills another. */
        const val IMAGES = 4
    }
}
