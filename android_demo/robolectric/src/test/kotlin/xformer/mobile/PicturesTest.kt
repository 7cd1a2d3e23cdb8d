package xformer.mobile

import android.graphics.Bitmap
import android.graphics.Color
import android.graphics.ColorSpace
import android.media.ExifInterface
import java.io.ByteArrayOutputStream
import java.io.File
import java.nio.ByteBuffer
import java.util.zip.CRC32
import kotlin.math.abs
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import xformer.mobile.core.ImageException
import xformer.mobile.core.ImageSize
import xformer.mobile.core.Preprocess
import xformer.mobile.core.ResizeRule
import xformer.mobile.core.RgbImage

/** Bitmaps and picture files by Android's own decoders and bitmaps. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class PicturesTest {
    @get:Rule
    val folder = TemporaryFolder()

    @Test
    fun `golden pictures are decoded to their very bytes`() {
        val golden = File(System.getProperty("xformer.golden"), "preprocess")
        val cases = Json.parseToJsonElement(File(golden, "cases.json").readText()).jsonObject.getValue("cases").jsonArray
        val images = cases.associate { case ->
            fun text(name: String) = case.jsonObject.getValue(name).jsonPrimitive.content
            text("image") to text("pixels")
        }
        assertTrue(images.isNotEmpty())
        for ((image, pixels) in images) {
            Pictures.decode(File(golden, image)).use { picture ->
                assertContentEquals(File(golden, pixels).readBytes(), picture.toRgb().bytes, image)
            }
        }
    }

    @Test
    fun `a bitmap's colors are taken, whatever its configuration`() {
        for (config in listOf(Bitmap.Config.ARGB_8888, Bitmap.Config.RGB_565, Bitmap.Config.RGBA_F16)) {
            val bitmap = Bitmap.createBitmap(3, 2, config)
            for (i in 0 until 6) bitmap.setPixel(i % 3, i / 3, COLORS[i])
            val expected = COLORS.flatMap { listOf(Color.red(it), Color.green(it), Color.blue(it)) }
            val found = Pictures.toRgb(bitmap).bytes.map { it.toInt() and 0xff }
            val slack = if (config == Bitmap.Config.RGB_565) 8 else 0
            for ((wanted, got) in expected.zip(found)) assertTrue(abs(wanted - got) <= slack, "$config: $wanted, $got")
        }
    }

    @Test
    fun `alpha masks are grey`() {
        val bitmap = Bitmap.createBitmap(2, 1, Bitmap.Config.ALPHA_8)
        bitmap.copyPixelsFromBuffer(ByteBuffer.wrap(byteArrayOf(7, -1)))
        assertContentEquals(byteArrayOf(7, 7, 7, -1, -1, -1), Pictures.toRgb(bitmap).bytes)
    }

    @Test
    fun `a bitmap comes back as it was`() {
        val image = RgbImage(5, 3, ByteArray(45) { (it * 37).toByte() })
        assertContentEquals(image.bytes, Pictures.toRgb(Pictures.toBitmap(image)).bytes)
    }

    @Test
    fun `colors of transparent pixels in a file survive`() {
        val png = png(2, 1, byteArrayOf(200.toByte(), 100, 50, 3, 9, 8, 7, 0), colorType = 6)
        assertContentEquals(byteArrayOf(200.toByte(), 100, 50, 9, 8, 7), Pictures.decode(png).use { it.toRgb() }.bytes)
    }

    @Test
    fun `a file's color profile changes no number`() {
        val bitmap = Bitmap.createBitmap(2, 1, Bitmap.Config.ARGB_8888, true, ColorSpace.get(ColorSpace.Named.DISPLAY_P3))
        // Red and blue are the same: which comes first in memory differs between Android and the JVM.
        bitmap.copyPixelsFromBuffer(ByteBuffer.wrap(byteArrayOf(-56, 100, -56, -1, 10, -6, 10, -1)))
        val file = ByteArrayOutputStream().also { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }.toByteArray()
        assertTrue(String(file, Charsets.ISO_8859_1).contains("iCCP"), "the file has no profile to ignore")
        assertContentEquals(byteArrayOf(-56, 100, -56, 10, -6, 10), Pictures.decode(file).use { it.toRgb() }.bytes)
    }

    @Test
    fun `a photograph is turned upright by its orientation`() {
        val bitmap = Bitmap.createBitmap(48, 32, Bitmap.Config.ARGB_8888)
        for (y in 0 until 32) {
            for (x in 0 until 48) bitmap.setPixel(x, y, if (x < 24 && y < 16) Color.RED else Color.BLUE)
        }
        val file = folder.newFile("photograph.jpg")
        file.outputStream().use { bitmap.compress(Bitmap.CompressFormat.JPEG, 100, it) }
        val stored = Pictures.decode(file).use { it.toRgb() }
        for (orientation in 1..8) {
            ExifInterface(file.path).apply {
                setAttribute(ExifInterface.TAG_ORIENTATION, orientation.toString())
                saveAttributes()
            }
            val upright = Preprocess.upright(stored, orientation)
            Pictures.decode(file).use { picture ->
                assertEquals(upright.width to upright.height, picture.width to picture.height)
                assertContentEquals(upright.bytes, picture.toRgb().bytes, "orientation $orientation")
            }
        }
    }

    @Test
    fun `a picture of a hundred megapixels is fitted without a copy of it`() {
        val bitmap = Bitmap.createBitmap(12_000, 9_000, Bitmap.Config.RGB_565)
        bitmap.eraseColor(Color.RED)
        val fitted = Preprocess.preprocess(Pictures.rows(bitmap), ImageSize(64, 64), ResizeRule.RESIZE).image
        for (i in 0 until 64 * 64) {
            assertEquals(listOf<Byte>(-1, 0, 0), fitted.bytes.slice(3 * i until 3 * i + 3))
        }
        bitmap.recycle()
    }

    @Test
    fun `a single pixel is a picture`() {
        val fitted = Preprocess.preprocess(
            Pictures.rows(Bitmap.createBitmap(intArrayOf(COLORS[1]), 1, 1, Bitmap.Config.ARGB_8888)),
            ImageSize(64, 64),
            ResizeRule.RESIZE_SHORTER_CENTER_CROP,
        ).image
        assertEquals(setOf(Color.green(COLORS[1]).toByte()), fitted.bytes.filterIndexed { i, _ -> i % 3 == 1 }.toSet())
    }

    @Test
    fun `what is no picture is refused in words`() {
        val whole = png(40, 40, ByteArray(3 * 1600) { (it * 31).toByte() }, colorType = 2)
        val contents = mapOf(
            "nothing" to ByteArray(0),
            "text" to "this is no picture".toByteArray(),
            "a header alone" to whole.copyOf(40),
            "more pixels than are decoded" to png(20_000, 20_000, ByteArray(10), colorType = 2),
        )
        for ((name, content) in contents) {
            val error = assertFailsWith<ImageException>(name) { Pictures.decode(content) }
            assertTrue(error.message!!.lines().size == 1 && "can't use picture" in error.message!!, "$name: $error")
        }
        assertFailsWith<ImageException> { Pictures.decode(File(folder.root, "missing.png")) }
        assertFailsWith<ImageException> { Pictures.decode(folder.root) }
        assertFailsWith<ImageException> {
            Pictures.toRgb(Bitmap.createBitmap(2, 2, Bitmap.Config.ARGB_8888).apply { recycle() })
        }
    }

    @Test
    fun `broken files never do more than fail`() {
        val whole = png(40, 40, ByteArray(3 * 1600) { (it * 31).toByte() }, colorType = 2)
        val random = java.util.Random(0)
        repeat(300) {
            val broken = whole.copyOf(if (random.nextInt(3) == 0) random.nextInt(whole.size) else whole.size)
            repeat(random.nextInt(5)) { if (broken.isNotEmpty()) broken[random.nextInt(broken.size)] = random.nextInt().toByte() }
            try {
                Pictures.decode(broken, maxPixels = 1_000_000).use { it.toRgb() }
            } catch (_: ImageException) {
                // What is expected of most of them.
            }
        }
    }

    /** A PNG of 8 bits; its pixels may be fewer than it says. */
    private fun png(width: Int, height: Int, pixels: ByteArray, colorType: Int): ByteArray {
        val file = ByteArrayOutputStream()
        file.write(byteArrayOf(-119, 80, 78, 71, 13, 10, 26, 10))
        val header = ByteBuffer.allocate(13).putInt(width).putInt(height)
        header.put(byteArrayOf(8, colorType.toByte(), 0, 0, 0))
        file.write(chunk("IHDR", header.array()))
        val length = width * if (colorType == 6) 4 else 3
        val packed = ByteArrayOutputStream()
        java.util.zip.DeflaterOutputStream(packed).use { out ->
            for (start in pixels.indices step length) {
                out.write(0)
                out.write(pixels, start, minOf(length, pixels.size - start))
            }
        }
        file.write(chunk("IDAT", packed.toByteArray()))
        file.write(chunk("IEND", ByteArray(0)))
        return file.toByteArray()
    }

    private fun chunk(type: String, content: ByteArray): ByteArray {
        val body = type.toByteArray() + content
        val sum = CRC32().apply { update(body) }.value.toInt()
        return ByteBuffer.allocate(8 + body.size).putInt(content.size).put(body).putInt(sum).array()
    }

    private companion object {
        val COLORS = intArrayOf(Color.RED, 0xFF78C814.toInt(), Color.BLUE, Color.WHITE, Color.BLACK, 0xFF808080.toInt())
    }
}
