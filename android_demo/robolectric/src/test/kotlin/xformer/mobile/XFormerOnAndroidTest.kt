package xformer.mobile

import android.graphics.Bitmap
import android.graphics.ImageFormat
import android.graphics.Rect
import android.media.Image
import java.io.ByteArrayOutputStream
import java.io.File
import java.nio.ByteBuffer
import kotlin.random.Random
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals
import kotlin.test.assertTrue
import kotlinx.coroutines.runBlocking
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import xformer.mobile.core.ImageException
import xformer.mobile.core.RgbImage
import xformer.mobile.core.ThermalState

/** Bitmaps, camera frames and the device by Android's own classes. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class XFormerOnAndroidTest {
    private val random = Random(1)

    private val frame = YuvFrame(
        6,
        4,
        YuvPlane(ByteBuffer.wrap(random.nextBytes(24)), 6, 1),
        YuvPlane(ByteBuffer.wrap(random.nextBytes(6)), 3, 1),
        YuvPlane(ByteBuffer.wrap(random.nextBytes(6)), 3, 1),
    )

    @Test
    fun `a camera's image is read through its planes and its crop`() {
        val image = StubImage(ImageFormat.YUV_420_888, 6, 4, frame)
        assertContentEquals(YuvToRgb.convert(frame, 90).bytes, YuvToRgb.convert(image, 90).bytes)
        image.cropRect = Rect(1, 2, 4, 4)
        val cut = YuvToRgb.convert(frame, 270, mirrored = true, crop = Crop(1, 2, 3, 2))
        assertContentEquals(cut.bytes, YuvToRgb.convert(image, 270, mirrored = true).bytes)
        val other = assertFailsWith<ImageException> { YuvToRgb.convert(StubImage(ImageFormat.JPEG, 6, 4, frame)) }
        assertEquals("the frame has the image format 256; ask the camera for YUV_420_888 (35)", other.message)
    }

    @Test
    fun `bitmaps and camera images lead to the result of their pixels`(): Unit = runBlocking {
        val picture = RgbImage(50, 40, random.nextBytes(6000))
        val bundle = File(System.getProperty("xformer.bundles"), "classify-fp32")
        val options = XFormerOptions(EngineChoice.ONNX_RUNTIME, threads = 1)
        XFormer.open(bundle, options).use { xformer ->
            val expected = xformer.classify(picture)
            val bitmap = Pictures.toBitmap(picture)
            assertEquals(expected, xformer.classify(bitmap))
            assertEquals(expected, xformer.predict(bitmap))
            val image = StubImage(ImageFormat.YUV_420_888, 6, 4, frame)
            assertEquals(xformer.classify(YuvToRgb.convert(frame, 180)), xformer.predict(image, 180))
            val recycled = Bitmap.createBitmap(2, 2, Bitmap.Config.ARGB_8888).apply { recycle() }
            assertFailsWith<ImageException> { xformer.classify(recycled) }
        }
    }

    @Test
    fun `a preview shows the whole picture, and is no larger than asked for`() {
        val stored = RgbImage(30, 20, random.nextBytes(1800))
        val file = ByteArrayOutputStream()
        Pictures.toBitmap(stored).compress(Bitmap.CompressFormat.PNG, 100, file)
        Pictures.decode(file.toByteArray()).use { picture ->
            assertContentEquals(stored.bytes, picture.toRgb().bytes)
            assertContentEquals(stored.bytes, Pictures.toRgb(picture.preview(100)).bytes)
            val small = picture.preview(7)
            assertEquals(6 to 4, small.width to small.height)
        }
    }

    @Test
    fun `the device says what it knows, and the same each time`() {
        val context = RuntimeEnvironment.getApplication()
        val machine = DeviceInfo(context).machine()
        assertEquals("Android", machine.system)
        assertTrue(machine.release.orEmpty().contains("API 34"))
        assertTrue(machine.id.matches(Regex("[0-9a-f]{16}")))
        assertEquals(machine.copy(loadAverage = null), DeviceInfo(context).machine().copy(loadAverage = null))
        File(context.noBackupFilesDir, "xformer-install-id").delete()
        assertNotEquals(machine.id, DeviceInfo(context).machine().id)
        val device = DeviceInfo(context)
        assertEquals(ThermalState.NONE, device.thermalState())
        assertTrue(checkNotNull(device.residentBytes()) <= checkNotNull(device.peakResidentBytes()))
    }
}

/** What a camera delivers. */
private class StubImage(
    private val kind: Int,
    private val columns: Int,
    private val rows: Int,
    private val frame: YuvFrame,
) : Image() {
    init {
        mIsImageValid = true
    }

    override fun getFormat(): Int = kind

    override fun getWidth(): Int = columns

    override fun getHeight(): Int = rows

    override fun getTimestamp(): Long = 0

    override fun getTransform(): Int = 0

    override fun getScalingMode(): Int = 0

    override fun getPlanes(): Array<Plane> = listOf(frame.y, frame.u, frame.v).map { StubPlane(it) }.toTypedArray()

    override fun close() = Unit

    private class StubPlane(private val plane: YuvPlane) : Plane() {
        override fun getRowStride(): Int = plane.rowStride

        override fun getPixelStride(): Int = plane.pixelStride

        override fun getBuffer(): ByteBuffer = plane.buffer
    }
}
