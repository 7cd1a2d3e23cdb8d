package xformer.mobile.demo.camera

import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraDevice
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import org.junit.jupiter.api.Test
import xformer.mobile.demo.ui.XmlWords

class CameraProblemTest {
    @Test
    fun `what the service throws has a meaning`() {
        assertEquals(CameraProblem.IN_USE, CameraProblem.ofReason(CameraAccessException.CAMERA_IN_USE))
        assertEquals(CameraProblem.IN_USE, CameraProblem.ofReason(CameraAccessException.MAX_CAMERAS_IN_USE))
        assertEquals(CameraProblem.DISABLED, CameraProblem.ofReason(CameraAccessException.CAMERA_DISABLED))
        assertEquals(CameraProblem.DISCONNECTED, CameraProblem.ofReason(CameraAccessException.CAMERA_DISCONNECTED))
        assertEquals(CameraProblem.FAILED, CameraProblem.ofReason(CameraAccessException.CAMERA_ERROR))
        assertEquals(CameraProblem.FAILED, CameraProblem.ofReason(12345))
    }

    @Test
    fun `what a camera reports has a meaning`() {
        assertEquals(CameraProblem.IN_USE, CameraProblem.ofError(CameraDevice.StateCallback.ERROR_CAMERA_IN_USE))
        assertEquals(CameraProblem.IN_USE, CameraProblem.ofError(CameraDevice.StateCallback.ERROR_MAX_CAMERAS_IN_USE))
        assertEquals(CameraProblem.DISABLED, CameraProblem.ofError(CameraDevice.StateCallback.ERROR_CAMERA_DISABLED))
        assertEquals(CameraProblem.FAILED, CameraProblem.ofError(CameraDevice.StateCallback.ERROR_CAMERA_DEVICE))
        assertEquals(CameraProblem.FAILED, CameraProblem.ofError(CameraDevice.StateCallback.ERROR_CAMERA_SERVICE))
    }

    @Test
    fun `each has words of its own`() {
        val texts = CameraProblem.entries.map { XmlWords.text(it.text) }
        assertTrue(texts.all { it.isNotBlank() } && texts.toSet().size == texts.size)
    }
}
