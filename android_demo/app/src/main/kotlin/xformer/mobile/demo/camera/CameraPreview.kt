package xformer.mobile.demo.camera

import android.graphics.Matrix
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraManager
import android.hardware.display.DisplayManager
import android.view.TextureView
import xformer.mobile.core.Size
import xformer.mobile.demo.geometry.CameraGeometry
import xformer.mobile.demo.geometry.ScaleMode

/**
 * Shows a camera on a [texture], and hands out its frames, between [start] and [stop]. For the main thread.
 *
 * @param onFrame takes each frame over, on the camera's thread, with how it lies on the screen.
 * @param onProblem is called on the main thread; the camera is closed then, and [start] tries again.
 */
class CameraPreview(
    private val texture: TextureView,
    private val manager: CameraManager,
    private val displays: DisplayManager,
    private val onFrame: (Frame, CameraGeometry) -> Unit,
    private val onProblem: (CameraProblem) -> Unit,
) {
    private var camera: CameraChoice? = null
    private var surface: SurfaceTexture? = null
    private var session: CameraSession? = null

    /** Read by the camera's thread. */
    @Volatile
    private var geometry: CameraGeometry? = null

    /** Between landscape and landscape the other way round, nothing but the display says that it has turned. */
    private val displayListener = object : DisplayManager.DisplayListener {
        override fun onDisplayAdded(id: Int) = Unit

        override fun onDisplayRemoved(id: Int) = Unit

        override fun onDisplayChanged(id: Int) = place()
    }

    private val textureListener = object : TextureView.SurfaceTextureListener {
        override fun onSurfaceTextureAvailable(made: SurfaceTexture, width: Int, height: Int) {
            surface = made
            open()
        }

        override fun onSurfaceTextureSizeChanged(same: SurfaceTexture, width: Int, height: Int) {
            // The view has just given the texture its own size. A camera that is still being opened would take that.
            camera?.sizes?.preview?.let { same.setDefaultBufferSize(it.width, it.height) }
            place()
        }

        override fun onSurfaceTextureDestroyed(gone: SurfaceTexture): Boolean {
            surface = null
            close()
            return true
        }

        override fun onSurfaceTextureUpdated(same: SurfaceTexture) = Unit
    }

    /** Show [chosen] from now on, instead of what was shown before. */
    fun start(chosen: CameraChoice) {
        stop()
        camera = chosen
        displays.registerDisplayListener(displayListener, null)
        texture.surfaceTextureListener = textureListener
        surface = if (texture.isAvailable) texture.surfaceTexture else null
        open()
    }

    /** Close the camera; nothing is called any more, but for a frame that is on its way. */
    fun stop() {
        camera = null
        displays.unregisterDisplayListener(displayListener)
        texture.surfaceTextureListener = null
        close()
    }

    private fun open() {
        val chosen = camera ?: return
        val shown = surface ?: return
        val sizes = chosen.sizes
        if (sizes == null) {
            onProblem(CameraProblem.NO_FORMAT)
            return
        }
        close()
        place()
        var opened: CameraSession? = null
        opened = CameraSession(
            manager,
            chosen,
            sizes,
            shown,
            { frame -> geometry.let { if (it == null) frame.close() else onFrame(frame, it) } },
            { problem -> texture.post { if (session != null && session === opened) failed(problem) } },
        )
        session = opened
    }

    private fun failed(problem: CameraProblem) {
        close()
        onProblem(problem)
    }

    private fun close() {
        session?.close()
        session = null
    }

    /** Turn and stretch the texture so that the picture is upright, covers the view and keeps its shape. */
    private fun place() {
        val chosen = camera ?: return
        val sizes = chosen.sizes ?: return
        val display = texture.display ?: return
        val placed = CameraGeometry(chosen.sensorDegrees, QUARTER_TURN * display.rotation, chosen.front)
        geometry = placed
        if (texture.width == 0 || texture.height == 0) return
        val matrix = Matrix()
        val view = Size(texture.width, texture.height)
        matrix.setValues(placed.previewTransform(sizes.preview, view, ScaleMode.CROP).values())
        texture.setTransform(matrix)
    }

    private companion object {
        const val QUARTER_TURN = 90
    }
}
