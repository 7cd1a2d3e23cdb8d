package xformer.mobile

import android.graphics.ImageFormat
import android.media.Image
import java.nio.Buffer
import java.nio.ByteBuffer
import kotlin.math.max
import kotlin.math.min
import xformer.mobile.core.ImageException
import xformer.mobile.core.RgbImage
import xformer.mobile.core.UsageException

/**
 * One plane of a camera frame: the sample of column x and row y is the byte at `y * rowStride + x * pixelStride` of
 * [buffer], counted from its beginning. Of the last row, only the bytes up to its last sample need be there.
 */
public class YuvPlane(public val buffer: ByteBuffer, public val rowStride: Int, public val pixelStride: Int)

/** A rectangle of a frame's pixels: its top left corner and its size. */
public data class Crop(val x: Int, val y: Int, val width: Int, val height: Int)

/**
 * A frame in YUV 4:2:0, 8 bits: [y] has a sample for each pixel, [u] (Cb) and [v] (Cr) one for each two by two pixels,
 * (width + 1) / 2 by (height + 1) / 2 of them.
 *
 * @throws ImageException no pixels, strides that can't be, or a buffer with fewer bytes than its plane needs.
 */
public class YuvFrame(
    public val width: Int,
    public val height: Int,
    public val y: YuvPlane,
    public val u: YuvPlane,
    public val v: YuvPlane,
) {
    init {
        if (width < 1 || height < 1) throw ImageException("a frame of ${width}x$height has no pixels")
        check("Y", y, width, height)
        check("U", u, (width + 1) / 2, (height + 1) / 2)
        check("V", v, (width + 1) / 2, (height + 1) / 2)
    }

    private fun check(name: String, plane: YuvPlane, columns: Int, rows: Int) {
        val row = (columns - 1L) * plane.pixelStride + 1
        if (plane.pixelStride < 1 || plane.rowStride < row) {
            throw ImageException(
                "the $name plane has the pixel stride ${plane.pixelStride} and the row stride ${plane.rowStride}; " +
                    "$columns samples a row need at least 1 and $row",
            )
        }
        val needed = (rows - 1L) * plane.rowStride + row
        if (plane.buffer.limit() < needed) {
            throw ImageException("the $name plane has ${plane.buffer.limit()} bytes; ${columns}x$rows need $needed")
        }
    }

    public companion object {
        /**
         * The frame that a camera's image holds; nothing is copied, so the image must stay open while it is used.
         *
         * @throws ImageException an image of another format than YUV_420_888.
         */
        public fun of(image: Image): YuvFrame {
            if (image.format != ImageFormat.YUV_420_888) {
                throw ImageException(
                    "the frame has the image format ${image.format}; ask the camera for YUV_420_888 " +
                        "(${ImageFormat.YUV_420_888})",
                )
            }
            val (y, u, v) = image.planes.map { YuvPlane(it.buffer, it.rowStride, it.pixelStride) }
            return YuvFrame(image.width, image.height, y, u, v)
        }
    }
}

/**
 * Camera frames to RGB, in integers.
 *
 * The samples are taken for BT.601 in full range, as JFIF has them and as cameras deliver them. With y, u, v the bytes
 * of a pixel, all in 32-bit integers and `>>` rounding towards minus infinity:
 *
 *     red   = clip((65536 y                     +  91881 (v - 128) + 32768) >> 16)
 *     green = clip((65536 y -  22554 (u - 128)  -  46802 (v - 128) + 32768) >> 16)
 *     blue  = clip((65536 y + 116130 (u - 128)                     + 32768) >> 16)
 *
 * which is 1.402, 0.344136, 0.714136 and 1.772 times 65536, rounded. Each value is within 1 of the formula in real
 * numbers. U and V are repeated for their two by two pixels: they are not interpolated.
 */
public object YuvToRgb {
    private const val SHIFT = 16
    private const val HALF = 1 shl (SHIFT - 1)
    private const val RED_OF_V = 91_881
    private const val GREEN_OF_U = 22_554
    private const val GREEN_OF_V = 46_802
    private const val BLUE_OF_U = 116_130

    /**
     * The upright RGB picture of a frame: cut out [crop] (null: all of it), turn it clockwise by [rotationDegrees]
     * (what `ImageInfo.rotationDegrees` or the sensor's orientation says), then, if [mirrored], exchange left and
     * right, as a front camera's preview does.
     *
     * [reuse] takes the picture's bytes if it has just as many as are needed, so that a camera's loop allocates none;
     * the picture is then valid until the next call with the same array.
     *
     * @throws UsageException a rotation other than 0, 90, 180 or 270.
     * @throws ImageException a crop that leaves the frame, or is too large for one array.
     */
    public fun convert(
        frame: YuvFrame,
        rotationDegrees: Int = 0,
        mirrored: Boolean = false,
        crop: Crop? = null,
        reuse: ByteArray? = null,
    ): RgbImage {
        val area = crop ?: Crop(0, 0, frame.width, frame.height)
        if (area.x < 0 || area.y < 0 || area.width < 1 || area.height < 1 ||
            area.width > frame.width - area.x || area.height > frame.height - area.y
        ) {
            throw ImageException("$area is not inside the frame of ${frame.width}x${frame.height}")
        }
        val path = Path.of(area.width, area.height, rotationDegrees, mirrored)
        val size = 3L * area.width * area.height
        if (size > Int.MAX_VALUE) throw ImageException("a frame of ${area.width}x${area.height} is too large")
        val rgb = if (reuse != null && reuse.size.toLong() == size) reuse else ByteArray(size.toInt())
        fill(rgb, frame, area, path)
        return RgbImage(path.width, path.height, rgb)
    }

    /**
     * The upright RGB picture of a camera's image, which must stay open meanwhile: of its crop rectangle, as [convert]
     * of a frame does it.
     *
     * @throws UsageException a rotation other than 0, 90, 180 or 270.
     * @throws ImageException an image of another format than YUV_420_888, or of planes that can't be.
     */
    public fun convert(
        image: Image,
        rotationDegrees: Int = 0,
        mirrored: Boolean = false,
        reuse: ByteArray? = null,
    ): RgbImage {
        val shown = image.cropRect
        val crop = Crop(shown.left, shown.top, shown.width(), shown.height())
        return convert(YuvFrame.of(image), rotationDegrees, mirrored, crop, reuse)
    }

    /**
     * Where pixels go: the one at column x and row y of the crop has its red byte at `start + x * right + y * down`.
     */
    private class Path(val width: Int, val height: Int, val start: Int, val right: Int, val down: Int) {
        companion object {
            fun of(width: Int, height: Int, rotationDegrees: Int, mirrored: Boolean): Path {
                val upright = if (rotationDegrees % 180 == 0) width to height else height to width
                // One pixel to the right and one down in the result, in bytes.
                val row = 3 * upright.first
                val across = if (mirrored) -3 else 3
                val first = if (mirrored) row - 3 else 0
                val last = row * (upright.second - 1)
                val end = row - 3 - first
                return when (rotationDegrees) {
                    0 -> Path(upright.first, upright.second, first, across, row)
                    90 -> Path(upright.first, upright.second, end, row, -across)
                    180 -> Path(upright.first, upright.second, last + end, -across, -row)
                    270 -> Path(upright.first, upright.second, last + first, -row, across)
                    else -> throw UsageException("unknown rotation $rotationDegrees; valid: 0, 90, 180, 270")
                }
            }
        }
    }

    // This runs for every pixel of every frame: what the inner loop needs is in local variables.
    private fun fill(rgb: ByteArray, frame: YuvFrame, area: Crop, path: Path) {
        val luma = Row(frame.y, area.x, area.width)
        val firstPair = area.x / 2
        val pairs = (area.x + area.width - 1) / 2 - firstPair + 1
        val blueness = Row(frame.u, firstPair, pairs)
        val redness = Row(frame.v, firstPair, pairs)
        val red = IntArray(pairs)
        val green = IntArray(pairs)
        val blue = IntArray(pairs)
        val samples = luma.bytes
        val step = luma.pixelStride
        val odd = area.x - 2 * firstPair
        val right = path.right
        var read = -1
        for (row in 0 until area.height) {
            val y = area.y + row
            if (y / 2 != read) {
                read = y / 2
                blueness.read(read)
                redness.read(read)
                for (pair in 0 until pairs) {
                    val u = blueness[pair] - 128
                    val v = redness[pair] - 128
                    red[pair] = RED_OF_V * v + HALF
                    green[pair] = -GREEN_OF_U * u - GREEN_OF_V * v + HALF
                    blue[pair] = BLUE_OF_U * u + HALF
                }
            }
            luma.read(y)
            var from = 0
            var to = path.start + row * path.down
            for (column in odd until area.width + odd) {
                val pair = column shr 1
                val bright = (samples[from].toInt() and 0xFF) shl SHIFT
                rgb[to] = clip(bright + red[pair] shr SHIFT)
                rgb[to + 1] = clip(bright + green[pair] shr SHIFT)
                rgb[to + 2] = clip(bright + blue[pair] shr SHIFT)
                from += step
                to += right
            }
        }
    }

    // Without a branch: on noise, that takes four times as long.
    private fun clip(value: Int): Byte = max(0, min(value, 255)).toByte()

    /** Reads samples of a plane's row, [count] from column [first] on, in one bulk copy. */
    private class Row(plane: YuvPlane, private val first: Int, count: Int) {
        private val source = plane.buffer.duplicate()

        // ByteBuffer has a position() of its own since Java 9, which Android 8 lacks; Buffer's is everywhere.
        private val cursor: Buffer = source
        private val rowStride = plane.rowStride

        val pixelStride = plane.pixelStride

        /** The row; a sample every [pixelStride] bytes. */
        val bytes = ByteArray((count - 1) * pixelStride + 1)

        fun read(row: Int) {
            cursor.position(row * rowStride + first * pixelStride)
            source.get(bytes)
        }

        operator fun get(index: Int): Int = bytes[index * pixelStride].toInt() and 0xFF
    }
}
