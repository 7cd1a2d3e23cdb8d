package xformer.mobile

import xformer.mobile.core.ImageException
import xformer.mobile.core.RgbImage
import xformer.mobile.core.RowSource
import xformer.mobile.core.UsageException

// What pictures need of arithmetic, without a class of Android.

/** The EXIF orientation that changes nothing. */
internal const val UPRIGHT = 1

/** Copies a rectangle of ARGB pixels, not premultiplied: the one at (x + i, y + j) to `into[j * stride + i]`. */
internal fun interface Pixels {
    fun read(into: IntArray, stride: Int, x: Int, y: Int, width: Int, height: Int)
}

/**
 * Upright rows of a stored picture of [storedWidth] by [storedHeight], by its EXIF orientation: 1 to 8, any other
 * number changes nothing. It is read in stripes, so that rows asked for from the top down cost little and no copy is
 * made.
 *
 * Alpha is dropped; with [alphaIsGrey] it is what is taken, for red, green and blue alike.
 */
internal class OrientedRows(
    private val storedWidth: Int,
    private val storedHeight: Int,
    orientation: Int,
    private val alphaIsGrey: Boolean,
    private val pixels: Pixels,
) : RowSource {
    private val turned = orientation in 5..8
    private val fromRight = orientation in setOf(2, 3, 7, 8)
    private val fromBottom = orientation in setOf(3, 4, 6, 7)

    override val width: Int = if (turned) storedHeight else storedWidth

    override val height: Int = if (turned) storedWidth else storedHeight

    private val depth = (STRIPE_PIXELS / width).coerceIn(1, height)
    private val stripe = IntArray(depth * width)

    /** The upright rows that the stripe holds. */
    private var held = IntRange.EMPTY

    /** The first stored row in the stripe, or column where the picture is turned. */
    private var first = 0

    override fun row(y: Int, into: ByteArray) {
        if (y !in 0 until height) throw UsageException("row $y is not in a picture of $height rows")
        if (y !in held) read(y)
        val line = (if (if (turned) fromRight else fromBottom) height - 1 - y else y) - first
        val backwards = if (turned) fromBottom else fromRight
        val step = if (turned) held.last - held.first + 1 else 1
        var place = if (turned) line else line * width
        if (backwards) place += step * (width - 1)
        val ahead = if (backwards) -step else step
        var to = 0
        repeat(width) {
            val pixel = stripe[place]
            if (alphaIsGrey) {
                into.fill((pixel ushr 24).toByte(), to, to + 3)
            } else {
                into[to] = (pixel shr 16).toByte()
                into[to + 1] = (pixel shr 8).toByte()
                into[to + 2] = pixel.toByte()
            }
            to += 3
            place += ahead
        }
    }

    private fun read(y: Int) {
        val count = minOf(depth, height - y)
        val flipped = if (turned) fromRight else fromBottom
        first = if (flipped) height - y - count else y
        if (turned) {
            pixels.read(stripe, count, first, 0, count, storedHeight)
        } else {
            pixels.read(stripe, storedWidth, 0, first, storedWidth, count)
        }
        held = y until y + count
    }

    private companion object {
        const val STRIPE_PIXELS = 1 shl 16
    }
}

/** All rows. */
internal fun RowSource.toRgb(): RgbImage {
    if (this is RgbImage) return this
    if (width.toLong() * height > Pictures.MAX_PIXELS) {
        throw ImageException("a picture of ${width}x$height has more than ${Pictures.MAX_PIXELS} pixels; scale it down")
    }
    val bytes = try {
        ByteArray(3 * width * height)
    } catch (error: OutOfMemoryError) {
        throw ImageException("the ${width}x$height pixels of the picture do not fit the memory as bytes", error)
    }
    val row = ByteArray(3 * width)
    for (y in 0 until height) {
        row(y, row)
        row.copyInto(bytes, 3 * y * width)
    }
    return RgbImage(width, height, bytes)
}

/**
 * A smaller picture: squares of [factor] by [factor] pixels averaged to one, rounded; at the far edges what is left.
 */
internal fun RowSource.shrunk(factor: Int): RgbImage {
    val across = (width - 1) / factor + 1
    val down = (height - 1) / factor + 1
    val bytes = ByteArray(3 * across * down)
    val row = ByteArray(3 * width)
    for (v in 0 until down) {
        val sums = LongArray(3 * across)
        val top = v * factor
        val rows = minOf(factor, height - top)
        for (y in top until top + rows) {
            row(y, row)
            for (x in 0 until width) {
                val to = x / factor * 3
                for (channel in 0 until 3) sums[to + channel] += row[3 * x + channel].toLong() and 0xFF
            }
        }
        for (i in sums.indices) {
            val count = rows.toLong() * minOf(factor, width - i / 3 * factor)
            bytes[3 * v * across + i] = ((sums[i] + count / 2) / count).toByte()
        }
    }
    return RgbImage(across, down, bytes)
}

/** Row [y] as opaque ARGB pixels. */
internal fun RgbImage.argbRow(y: Int, into: IntArray) {
    var from = 3 * y * width
    for (x in 0 until width) {
        val red = bytes[from].toInt() and 0xFF
        val green = bytes[from + 1].toInt() and 0xFF
        val blue = bytes[from + 2].toInt() and 0xFF
        into[x] = (0xFF shl 24) or (red shl 16) or (green shl 8) or blue
        from += 3
    }
}

/**
 * By which power of two a picture of [width] by [height] is decoded smaller so that it has at most [maxPixels]; 1 where
 * it has.
 *
 * @throws ImageException no pixels, or too many and not [subsample].
 * @throws UsageException [maxPixels] is not from 1 to [Pictures.MAX_PIXELS].
 */
internal fun sampleSize(width: Int, height: Int, maxPixels: Int, subsample: Boolean): Int {
    if (maxPixels !in 1..Pictures.MAX_PIXELS) {
        throw UsageException("a limit of $maxPixels pixels is not valid; valid: 1 to ${Pictures.MAX_PIXELS}")
    }
    if (width < 1 || height < 1) throw ImageException("it is in no picture format that this device knows")
    var factor = 1
    while ((width - 1L) / factor + 1 > maxPixels / ((height - 1L) / factor + 1) && factor < 1 shl 30) factor *= 2
    if (factor > 1 && !subsample) {
        throw ImageException("it has ${width}x$height pixels, more than $maxPixels; scale it down, or subsample it")
    }
    return factor
}
