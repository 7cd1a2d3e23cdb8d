package xformer.mobile.core

import kotlin.math.max
import kotlin.math.min

/**
 * How a picture was fitted to the input; what postprocessing needs to go back. All in pixels.
 *
 * The [source] is resized to [resized], and its top left corner comes to [offset] in the input of size [target]:
 * negative where it was cropped, positive where it was padded.
 */
public data class Fit(val source: Size, val resized: Size, val offset: Point, val target: Size) {
    public companion object {
        private const val CROP_UP = 9L
        private const val CROP_DOWN = 8L

        /**
         * Where a picture goes in the input, by integer arithmetic: section 2 of docs/preprocessing.md.
         *
         * @throws ImageException [source] has no pixels, or is too elongated to be scaled.
         */
        public fun of(source: Size, target: ImageSize, rule: ResizeRule): Fit {
            if (source.width < 1 || source.height < 1) {
                throw ImageException("a picture of ${source.width}x${source.height} has no pixels")
            }
            val goal = Size(target.width, target.height)
            return when (rule) {
                ResizeRule.RESIZE -> Fit(source, goal, Point(0, 0), goal)
                ResizeRule.LETTERBOX -> inside(source, goal)
                ResizeRule.RESIZE_SHORTER_CENTER_CROP -> covering(source, goal)
            }
        }

        private fun inside(source: Size, goal: Size): Fit {
            val widthLimits = goal.width.toLong() * source.height <= goal.height.toLong() * source.width
            val scaled = scaled(source, goal, widthLimits)
            val resized = Size(min(scaled.width, goal.width), min(scaled.height, goal.height))
            val offset = Point((goal.width - resized.width) / 2, (goal.height - resized.height) / 2)
            return Fit(source, resized, offset, goal)
        }

        private fun covering(source: Size, goal: Size): Fit {
            val cover = Size(
                (goal.width * CROP_UP / CROP_DOWN).toInt(),
                (goal.height * CROP_UP / CROP_DOWN).toInt(),
            )
            val widthIsShort = cover.width.toLong() * source.height >= cover.height.toLong() * source.width
            val scaled = scaled(source, cover, widthIsShort)
            val resized = Size(max(scaled.width, goal.width), max(scaled.height, goal.height))
            val offset = Point(-((resized.width - goal.width) / 2), -((resized.height - goal.height) / 2))
            return Fit(source, resized, offset, goal)
        }

        /** [source] scaled so that its width ([byWidth]) or its height becomes the goal's; rounded, halves up. */
        private fun scaled(source: Size, goal: Size, byWidth: Boolean): Size {
            val up = (if (byWidth) goal.width else goal.height).toLong()
            val down = (if (byWidth) source.width else source.height).toLong()
            val width = scaled(source.width, up, down)
            val height = scaled(source.height, up, down)
            if (max(width, height) > Int.MAX_VALUE) {
                throw ImageException("a picture of ${source.width}x${source.height} is too elongated to be scaled")
            }
            return Size(width.toInt(), height.toInt())
        }

        private fun scaled(side: Int, up: Long, down: Long): Long = max(1L, (2 * side * up + down) / (2 * down))
    }
}

/** A picture that fits the input: [image] has the input's size, [fit] says how it came there. */
public class Preprocessed(public val image: RgbImage, public val fit: Fit)

/**
 * From an upright picture to the byte image that every artifact takes, bit for bit as the Python code does it
 * (docs/preprocessing.md). May be called from any thread.
 */
public object Preprocess {
    /** The grey that letterbox pads with. */
    private const val PAD: Byte = 114

    /** The largest intermediate picture; only one of an extreme shape needs more. */
    private const val MAX_RESIZED_PIXELS = 1L shl 26

    /** The longest side that is resampled: the weights take 8 bytes for each of its pixels. */
    private const val MAX_PICTURE_SIDE = 1 shl 20

    /**
     * Turns a picture upright by its EXIF orientation, 1 to 8; any other number changes nothing.
     *
     * Returns [image] itself where nothing changes.
     */
    public fun upright(image: RgbImage, exifOrientation: Int): RgbImage {
        val width = image.width
        val last = width * image.height - 1
        // Where the upright picture's first pixel is stored, and the steps to the next one of its row and column.
        val (origin, across, down) = when (exifOrientation) {
            2 -> Triple(width - 1, -1, width)
            3 -> Triple(last, -1, -width)
            4 -> Triple(last - width + 1, 1, -width)
            5 -> Triple(0, width, 1)
            6 -> Triple(last - width + 1, -width, 1)
            7 -> Triple(last, -width, -1)
            8 -> Triple(width - 1, width, -1)
            else -> return image
        }
        val isTurned = exifOrientation >= 5
        val uprightWidth = if (isTurned) image.height else width
        val uprightHeight = if (isTurned) width else image.height
        val upright = ByteArray(image.bytes.size)
        var to = 0
        for (y in 0 until uprightHeight) {
            var from = 3 * (origin + y * down)
            for (x in 0 until uprightWidth) {
                upright[to] = image.bytes[from]
                upright[to + 1] = image.bytes[from + 1]
                upright[to + 2] = image.bytes[from + 2]
                to += 3
                from += 3 * across
            }
        }
        return RgbImage(uprightWidth, uprightHeight, upright)
    }

    /**
     * Fits an upright picture to the input.
     *
     * @throws ImageException a picture without pixels, with more than 178,956,970, or too elongated to be scaled.
     */
    public fun preprocess(image: RowSource, target: ImageSize, rule: ResizeRule): Preprocessed {
        checkPixels(image.width, image.height)
        val fit = Fit.of(Size(image.width, image.height), target, rule)
        val (width, height) = fit.resized
        val isTooLarge = width.toLong() * height > MAX_RESIZED_PIXELS || width.toLong() * image.height > MAX_PIXELS
        if (isTooLarge || max(image.width, image.height) > MAX_PICTURE_SIDE) {
            throw ImageException("a picture of ${image.width}x${image.height} is too elongated to be scaled to $target")
        }
        val canvas = ByteArray(3 * target.width * target.height)
        if (rule == ResizeRule.LETTERBOX) canvas.fill(PAD)
        resample(image, fit, canvas)
        return Preprocessed(RgbImage(target.width, target.height, canvas), fit)
    }

    /** Resamples the part of the picture that the input shows, into its place on the canvas. */
    private fun resample(image: RowSource, fit: Fit, canvas: ByteArray) {
        val left = max(fit.offset.x, 0)
        val top = max(fit.offset.y, 0)
        val right = min(fit.offset.x + fit.resized.width, fit.target.width)
        val bottom = min(fit.offset.y + fit.resized.height, fit.target.height)
        val columns = Taps.of(image.width, fit.resized.width, left - fit.offset.x, right - fit.offset.x)
        val rows = Taps.of(image.height, fit.resized.height, top - fit.offset.y, bottom - fit.offset.y)

        // The width first, then the height. Only as many narrowed rows are kept as one target row is made of.
        val length = 3 * (right - left)
        val narrowed = Array(rows.most) { ByteArray(length) }
        val sums = IntArray(length)
        val source = ByteArray(3 * image.width)
        var next = 0
        for (y in 0 until bottom - top) {
            val first = rows.first[y]
            val count = rows.count(y)
            for (row in max(next, first) until first + count) {
                image.row(row, source)
                narrow(source, columns, narrowed[row % narrowed.size])
            }
            next = max(next, first + count)
            sums.fill(HALF)
            for (tap in 0 until count) {
                add(narrowed[(first + tap) % narrowed.size], rows.weights[rows.start[y] + tap], sums)
            }
            var to = 3 * ((top + y) * fit.target.width + left)
            for (sum in sums) canvas[to++] = sample(sum)
        }
    }

    private fun narrow(source: ByteArray, columns: Taps, into: ByteArray) {
        val weights = columns.weights
        var to = 0
        for (x in columns.first.indices) {
            var from = 3 * columns.first[x]
            var red = HALF
            var green = HALF
            var blue = HALF
            for (tap in columns.start[x] until columns.start[x + 1]) {
                val weight = weights[tap]
                red += weight * (source[from].toInt() and 0xff)
                green += weight * (source[from + 1].toInt() and 0xff)
                blue += weight * (source[from + 2].toInt() and 0xff)
                from += 3
            }
            into[to] = sample(red)
            into[to + 1] = sample(green)
            into[to + 2] = sample(blue)
            to += 3
        }
    }

    private fun add(row: ByteArray, weight: Int, sums: IntArray) {
        for (i in sums.indices) sums[i] += weight * (row[i].toInt() and 0xff)
    }

    // Weights are not negative, so neither is a sum; but they may add up to a little more than one.
    private fun sample(sum: Int): Byte = min(sum ushr Taps.BITS, 255).toByte()

    private const val HALF = 1 shl (Taps.BITS - 1)
}
