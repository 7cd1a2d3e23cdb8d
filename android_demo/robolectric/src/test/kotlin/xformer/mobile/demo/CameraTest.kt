package xformer.mobile.demo

import android.Manifest
import android.graphics.ImageFormat
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CameraMetadata
import android.os.Looper
import android.util.Size
import android.view.TextureView
import android.view.View
import android.view.ViewGroup
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.shadow.api.Shadow
import org.robolectric.shadows.ShadowCameraCharacteristics
import org.robolectric.shadows.StreamConfigurationMapBuilder

/** The live screen with a camera that gives no frames: Robolectric has none that does. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34], qualifiers = "w400dp-h800dp-port-mdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class CameraTest {
    private val app get() = RuntimeEnvironment.getApplication()

    @Test
    fun `the camera is opened, exchanged, and closed in the background`() {
        shadowOf(app).grantPermissions(Manifest.permission.CAMERA)
        camera("0", CameraMetadata.LENS_FACING_BACK)
        camera("1", CameraMetadata.LENS_FACING_FRONT)
        val controller = Robolectric.buildActivity(MainActivity::class.java).setup()
        val activity = controller.get()
        idle()
        assertEquals(View.VISIBLE, activity.findViewById<View>(R.id.switch_camera).visibility)
        preview(activity)
        assertEquals(View.GONE, activity.findViewById<View>(R.id.message).visibility)
        assertTrue(hasCameraThread())
        activity.findViewById<View>(R.id.switch_camera).performClick()
        preview(activity)
        assertTrue(hasCameraThread())
        controller.recreate()
        idle()
        controller.pause().stop()
        idle()
        assertFalse(hasCameraThread())
        controller.destroy()
    }

    /** What the system does when the view is on the screen. */
    private fun preview(activity: MainActivity) {
        val texture = activity.findViewById<ViewGroup>(R.id.stage).getChildAt(0) as TextureView
        checkNotNull(texture.surfaceTextureListener).onSurfaceTextureAvailable(SurfaceTexture(1), 400, 500)
        idle()
    }

    private fun hasCameraThread(): Boolean = Thread.getAllStackTraces().keys.any { it.name == "camera" }

    private fun camera(id: String, facing: Int) {
        val about = ShadowCameraCharacteristics.newCameraCharacteristics()
        val shadow = Shadow.extract<ShadowCameraCharacteristics>(about)
        shadow.set(CameraCharacteristics.LENS_FACING, facing)
        shadow.set(CameraCharacteristics.SENSOR_ORIENTATION, 90)
        val capabilities = intArrayOf(CameraMetadata.REQUEST_AVAILABLE_CAPABILITIES_BACKWARD_COMPATIBLE)
        shadow.set(CameraCharacteristics.REQUEST_AVAILABLE_CAPABILITIES, capabilities)
        val sizes = StreamConfigurationMapBuilder.newBuilder()
        for (size in listOf(Size(1440, 1080), Size(640, 480))) {
            sizes.addOutputSize(ImageFormat.YUV_420_888, size)
            sizes.addOutputSize(size)
        }
        shadow.set(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP, sizes.build())
        shadowOf(app.getSystemService(CameraManager::class.java)).addCamera(id, about)
    }

    private fun idle() = repeat(20) {
        shadowOf(Looper.getMainLooper()).idle()
        Thread.sleep(20)
    }
}
