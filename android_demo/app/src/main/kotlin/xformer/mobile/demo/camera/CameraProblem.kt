package xformer.mobile.demo.camera

import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraDevice
import xformer.mobile.demo.R

/**
 * Why there are no pictures.
 *
 * @property text what is said of it, a string's id.
 */
enum class CameraProblem(val text: Int) {
    NO_CAMERA(R.string.camera_none),
    NO_PERMISSION(R.string.camera_no_permission),
    IN_USE(R.string.camera_in_use),
    DISABLED(R.string.camera_disabled),
    DISCONNECTED(R.string.camera_disconnected),
    NO_FORMAT(R.string.camera_no_format),
    FAILED(R.string.camera_failed),
    ;

    companion object {
        /** What a reason of [CameraAccessException] means. */
        fun ofReason(reason: Int): CameraProblem = when (reason) {
            CameraAccessException.CAMERA_IN_USE, CameraAccessException.MAX_CAMERAS_IN_USE -> IN_USE
            CameraAccessException.CAMERA_DISABLED -> DISABLED
            CameraAccessException.CAMERA_DISCONNECTED -> DISCONNECTED
            else -> FAILED
        }

        /** What an error of [CameraDevice.StateCallback.onError] means. */
        fun ofError(error: Int): CameraProblem = when (error) {
            CameraDevice.StateCallback.ERROR_CAMERA_IN_USE,
            CameraDevice.StateCallback.ERROR_MAX_CAMERAS_IN_USE,
            -> IN_USE
            CameraDevice.StateCallback.ERROR_CAMERA_DISABLED -> DISABLED
            else -> FAILED
        }
    }
}
