package xformer.mobile.demo

import android.Manifest
import android.content.pm.PackageManager
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
import java.io.File
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.Semaphore
import kotlin.test.assertEquals
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
import xformer.mobile.demo.camera.CameraChoice
import xformer.mobile.demo.camera.CameraProblem
import xformer.mobile.demo.camera.CameraSession
import xformer.mobile.demo.geometry.StreamSizes
import xformer.mobile.demo.model.Choice

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
        assertTrue(cameraThreads() > 0)
        activity.findViewById<View>(R.id.switch_camera).performClick()
        preview(activity)
        assertTrue(cameraThreads() > 0)
        controller.recreate()
        idle()
        controller.pause().stop()
        settle { cameraThreads() == 0 }
        controller.destroy()
    }

    @Test
    fun `the pictures keep their size when the view gets another one while the camera opens`() {
        shadowOf(app).grantPermissions(Manifest.permission.CAMERA)
        camera("0", CameraMetadata.LENS_FACING_BACK)
        val controller = Robolectric.buildActivity(MainActivity::class.java).setup()
        val sizes = mutableListOf<Size>()
        val texture = object : SurfaceTexture(1) {
            override fun setDefaultBufferSize(width: Int, height: Int) {
                sizes += Size(width, height)
            }
        }
        preview(controller.get(), texture)
        // TextureView sets its own size, and only then tells of it.
        texture.setDefaultBufferSize(400, 450)
        listener(controller.get()).onSurfaceTextureSizeChanged(texture, 400, 450)
        assertEquals(listOf(Size(1440, 1080), Size(400, 450), Size(1440, 1080)), sizes)
        controller.pause().stop().destroy()
        idle()
    }

    @Test
    fun `a camera waits until the one before is closed, and lets the next one`() {
        camera("0", CameraMetadata.LENS_FACING_BACK)
        val turn = Semaphore(1)
        val first = session("0", turn)
        settle { turn.availablePermits() == 0 }
        val second = session("0", turn)
        val third = session("0", turn)
        first.close()
        settle { turn.availablePermits() == 0 && cameraThreads() == 2 }
        second.close()
        third.close()
        settle { turn.availablePermits() == 1 && cameraThreads() == 0 }
    }

    @Test
    fun `a camera that can't be opened lets the next one`() {
        val problems = CopyOnWriteArrayList<CameraProblem>()
        val turn = Semaphore(1)
        session("none", turn, problems::add)
        settle { problems.isNotEmpty() && turn.availablePermits() == 1 && cameraThreads() == 0 }
    }

    private fun session(id: String, turn: Semaphore, onProblem: (CameraProblem) -> Unit = {}): CameraSession {
        val sizes = StreamSizes(xformer.mobile.core.Size(640, 480), xformer.mobile.core.Size(640, 480))
        val chosen = CameraChoice(id, front = false, sensorDegrees = 90, sizes)
        val manager = app.getSystemService(CameraManager::class.java)
        return CameraSession(manager, chosen, sizes, SurfaceTexture(1), { it.close() }, onProblem, turn)
    }

    private fun settle(isSo: () -> Boolean) = waitFor("the cameras' rest", ::cameraThreads, seconds = 60, isSo)

    @Test
    fun `a broken bundle is said over the camera's picture, with the way out`() {
        shadowOf(app).grantPermissions(Manifest.permission.CAMERA)
        camera("0", CameraMetadata.LENS_FACING_BACK)
        val bundle = File(app.noBackupFilesDir, "bundles/broken").apply { mkdirs() }
        File(bundle, "manifest.json").writeText("{}")
        Demo(app).choice = Choice(bundle = "broken")
        val controller = Robolectric.buildActivity(MainActivity::class.java).setup()
        val screen = controller.get()
        waitFor("the words", { texts(screen.window.decorView) }) {
            text(screen, R.id.message_text).startsWith(app.getString(R.string.model_failed, "").trim())
        }
        assertEquals(app.getString(R.string.open_setup), text(screen, R.id.message_action))
        screen.findViewById<View>(R.id.message_action).performClick()
        assertEquals(SetupActivity::class.java.name, shadowOf(screen).nextStartedActivity.component?.className)
        controller.pause().stop().destroy()
        idle()
    }

    @Test
    fun `a question that was taken from the screen is no refusal`() {
        val controller = Robolectric.buildActivity(MainActivity::class.java).setup()
        val screen = controller.get()
        screen.findViewById<View>(R.id.message_action).performClick()
        screen.onRequestPermissionsResult(0, emptyArray(), intArrayOf())
        assertEquals(app.getString(R.string.camera_permission_allow), text(screen, R.id.message_action))
        val refused = intArrayOf(PackageManager.PERMISSION_DENIED)
        screen.findViewById<View>(R.id.message_action).performClick()
        screen.onRequestPermissionsResult(0, arrayOf(Manifest.permission.CAMERA), refused)
        assertEquals(app.getString(R.string.camera_open_settings), text(screen, R.id.message_action))
        controller.pause().stop().destroy()
    }

    /** What the system does when the view is on the screen. */
    private fun preview(activity: MainActivity, texture: SurfaceTexture = SurfaceTexture(1)) {
        listener(activity).onSurfaceTextureAvailable(texture, 400, 500)
        idle()
    }

    private fun listener(activity: MainActivity): TextureView.SurfaceTextureListener {
        val view = activity.findViewById<ViewGroup>(R.id.stage).getChildAt(0) as TextureView
        return checkNotNull(view.surfaceTextureListener)
    }

    private fun cameraThreads(): Int = Thread.getAllStackTraces().keys.count { it.name == "camera" }

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
