package xformer.mobile

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ColorSpace
import android.media.ExifInterface
import android.net.Uri
import android.os.Build
import java.io.ByteArrayInputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import xformer.mobile.core.ImageException
import xformer.mobile.core.PictureDecoder
import xformer.mobile.core.RgbImage
import xformer.mobile.core.RowSource
import xformer.mobile.core.UsageException

/**
 * Bitmaps and picture files as the RGB rows that preprocessing takes.
 *
 * **A bitmap** is taken for the colors that it shows: those of another color space (Display P3, linear RGBA_F16, ...)
 * are converted to sRGB by the platform, and those beyond sRGB are clipped. RGB_565 is widened as the platform does it.
 * Alpha is dropped without blending. But a bitmap's pixels are usually premultiplied in memory, and dividing by alpha
 * again loses bits: the lower alpha is, the fewer levels are left, and at alpha 0 all is black. A bitmap whose
 * transparent pixels matter has to be decoded with `inPremultiplied = false`, as [decode] does. ALPHA_8 holds no
 * colors: its values are taken for grey. A bitmap in graphics memory (HARDWARE) is copied first.
 *
 * **A file** is decoded to the numbers that it holds, as training takes them (docs/preprocessing.md, section 1): not
 * scaled, not premultiplied, turned by the EXIF orientation, and a color profile is ignored. On Android 8 and 9, and
 * for profiles that the platform has no color space for, the platform converts to sRGB instead. Decoders of JPEG round
 * differently by a level or two; PNG with 8 bits is exact.
 */
public object Pictures {
    /** The largest picture that is decoded, in pixels; the same limit as in the Python code. */
    public const val MAX_PIXELS: Int = 178_956_970

    /** Decodes a bundle's golden pictures. */
    public val decoder: PictureDecoder = PictureDecoder { content -> decode(content).use { it.toRgb() } }

    /**
     * A bitmap's rows. Nothing is copied but some rows at a time (all of it where it is in graphics memory): the bitmap
     * must neither change nor be recycled meanwhile.
     *
     * @throws ImageException a recycled bitmap, or one in graphics memory that can't be copied.
     */
    public fun rows(bitmap: Bitmap): RowSource = rows(bitmap, UPRIGHT)

    /** A bitmap as a picture of its own; see [rows]. */
    public fun toRgb(bitmap: Bitmap): RgbImage = rows(bitmap).toRgb()

    /** The bitmap of a picture: ARGB_8888, opaque, sRGB. */
    public fun toBitmap(image: RgbImage): Bitmap {
        val bitmap = Bitmap.createBitmap(image.width, image.height, Bitmap.Config.ARGB_8888)
        bitmap.setHasAlpha(false)
        val row = IntArray(image.width)
        for (y in 0 until image.height) {
            image.argbRow(y, row)
            bitmap.setPixels(row, 0, image.width, 0, y, image.width, 1)
        }
        return bitmap
    }

    /**
     * Decodes a picture file: JPEG, PNG, WebP, GIF (its first frame), BMP, and what else the device has a decoder for.
     *
     * A picture of more than [maxPixels] is refused; with [subsample] it is decoded at a half, a quarter, ... of its
     * size instead, so that it fits, which changes the pixels. Results are then in the pixels of the smaller picture.
     *
     * @throws ImageException a file that is missing, no picture, broken, or too large.
     */
    public fun decode(file: File, maxPixels: Int = MAX_PIXELS, subsample: Boolean = false): Picture =
        decode(file.toString(), maxPixels, subsample) { file.inputStream() }

    /** Decodes a picture file's content; see the other [decode]. */
    public fun decode(content: ByteArray, maxPixels: Int = MAX_PIXELS, subsample: Boolean = false): Picture =
        decode("of ${content.size} bytes", maxPixels, subsample) { ByteArrayInputStream(content) }

    /** Decodes what a document or media provider holds; see the other [decode]. */
    public fun decode(
        resolver: ContentResolver,
        uri: Uri,
        maxPixels: Int = MAX_PIXELS,
        subsample: Boolean = false,
    ): Picture = decode(uri.toString(), maxPixels, subsample) {
        resolver.openInputStream(uri) ?: throw IOException("its provider returned nothing")
    }

    private fun decode(name: String, maxPixels: Int, subsample: Boolean, open: () -> InputStream): Picture =
        try {
            val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
            open().use { BitmapFactory.decodeStream(it, null, bounds) }
            val options = BitmapFactory.Options().apply {
                inPreferredConfig = Bitmap.Config.ARGB_8888
                inPremultiplied = false
                inScaled = false
                inSampleSize = sampleSize(bounds.outWidth, bounds.outHeight, maxPixels, subsample)
            }
            val bitmap = try {
                open().use { BitmapFactory.decodeStream(it, null, options) }
            } catch (error: OutOfMemoryError) {
                val size = "${bounds.outWidth}x${bounds.outHeight}"
                throw ImageException("its $size pixels do not fit the memory; scale it down, or ask for less", error)
            }
            if (bitmap == null) throw ImageException("it is broken, or in no format that this device decodes")
            ignoreProfile(bitmap)
            Picture(bitmap, orientation(open))
        } catch (error: ImageException) {
            throw ImageException("can't use picture $name: ${error.message}", error)
        } catch (error: IOException) {
            throw ImageException("can't read picture $name: ${error.message}", error)
        } catch (error: SecurityException) {
            throw ImageException("can't read picture $name: the app may not", error)
        } catch (error: IllegalArgumentException) {
            throw ImageException("can't use picture $name: ${error.message}", error)
        }

    /** Lets the bitmap's numbers stand for sRGB, whatever the file's profile says. They do not change. */
    private fun ignoreProfile(bitmap: Bitmap) {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q || bitmap.config == Bitmap.Config.ALPHA_8) return
        val sRgb = ColorSpace.get(ColorSpace.Named.SRGB)
        if (bitmap.colorSpace == sRgb) return
        try {
            bitmap.setColorSpace(sRgb)
        } catch (_: IllegalArgumentException) {
            // Of a wider range than 0..1: reading the pixels converts them.
        }
    }

    private fun orientation(open: () -> InputStream): Int = try {
        open().use { ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, UPRIGHT) }
    } catch (_: IOException) {
        UPRIGHT // of a format that has no EXIF data for this version of Android
    } catch (_: RuntimeException) {
        UPRIGHT // of EXIF data so broken that the platform trips over them; the picture itself was decoded
    }

    internal fun rows(bitmap: Bitmap, orientation: Int): RowSource {
        if (bitmap.isRecycled) throw ImageException("the bitmap is recycled; keep it until the result is there")
        val config = bitmap.config
        val readable = when (config) {
            Bitmap.Config.ARGB_8888, Bitmap.Config.RGB_565, Bitmap.Config.ALPHA_8, Bitmap.Config.RGBA_F16 -> bitmap
            else -> copy(bitmap)
        }
        return OrientedRows(readable.width, readable.height, orientation, config == Bitmap.Config.ALPHA_8) {
                into, stride, x, y, width, height ->
            readable.getPixels(into, 0, stride, x, y, width, height)
        }
    }

    private fun copy(bitmap: Bitmap): Bitmap = try {
        bitmap.copy(Bitmap.Config.ARGB_8888, false)
    } catch (_: OutOfMemoryError) {
        null
    } ?: throw ImageException(
        "the bitmap of ${bitmap.width}x${bitmap.height}, ${bitmap.config}, can't be copied to memory; " +
            "decode it without Config.HARDWARE",
    )
}

/** A decoded picture file: upright rows of a bitmap that is as the file has it. [close] frees it. */
public class Picture internal constructor(private val bitmap: Bitmap, private val orientation: Int) :
    RowSource,
    AutoCloseable {
    private val rows = Pictures.rows(bitmap, orientation)

    override val width: Int get() = rows.width

    override val height: Int get() = rows.height

    override fun row(y: Int, into: ByteArray) {
        rows.row(y, into)
    }

    /** All of it as bytes. */
    public fun toRgb(): RgbImage = rows.toRgb()

    /** An upright, opaque copy to show, neither side longer than [maxSide]: n by n pixels averaged to one. */
    public fun preview(maxSide: Int): Bitmap {
        if (maxSide < 1) throw UsageException("a preview of at most $maxSide pixels can't be; it needs 1 or more")
        val factor = (maxOf(width, height) - 1) / maxSide + 1
        return Pictures.toBitmap(rows.shrunk(factor))
    }

    /** Frees the memory. Safe to call twice. */
    override fun close() {
        bitmap.recycle()
    }
}
