package xformer.mobile.demo.camera

import android.graphics.ImageFormat
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraManager
import xformer.mobile.core.Size
import xformer.mobile.demo.geometry.StreamSizes

/**
 * A camera of the device.
 *
 * @property sensorDegrees see [xformer.mobile.demo.geometry.CameraGeometry].
 * @property sizes null where it has no stream that can be shown and analyzed.
 */
data class CameraChoice(val id: String, val front: Boolean, val sensorDegrees: Int, val sizes: StreamSizes?)

/** The device's cameras. */
class Cameras(private val manager: CameraManager) {
    /**
     * Every camera that makes pictures, the back ones first; a front one last.
     *
     * @throws CameraAccessException the camera service does not answer.
     */
    fun all(): List<CameraChoice> = manager.cameraIdList.mapNotNull(::describe).sortedBy { it.front }

    private fun describe(id: String): CameraChoice? {
        // The service throws this for a camera that has just been unplugged.
        val about = try {
            manager.getCameraCharacteristics(id)
        } catch (_: IllegalArgumentException) {
            return null
        }
        val capabilities = about.get(CameraCharacteristics.REQUEST_AVAILABLE_CAPABILITIES) ?: intArrayOf()
        if (CameraCharacteristics.REQUEST_AVAILABLE_CAPABILITIES_BACKWARD_COMPATIBLE !in capabilities) return null
        val map = about.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)
        val shown = map?.getOutputSizes(SurfaceTexture::class.java).orEmpty()
        val analyzed = map?.getOutputSizes(ImageFormat.YUV_420_888).orEmpty()
        return CameraChoice(
            id,
            about.get(CameraCharacteristics.LENS_FACING) == CameraCharacteristics.LENS_FACING_FRONT,
            about.get(CameraCharacteristics.SENSOR_ORIENTATION) ?: 0,
            StreamSizes.choose(shown.map(::size), analyzed.map(::size)),
        )
    }

    private fun size(size: android.util.Size): Size = Size(size.width, size.height)
}
