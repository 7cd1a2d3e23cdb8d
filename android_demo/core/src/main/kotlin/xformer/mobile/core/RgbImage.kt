package xformer.mobile.core

/** A picture that is read row by row, so that a large one need not lie in memory as RGB. */
public interface RowSource {
    /** In pixels. */
    public val width: Int

    /** In pixels. */
    public val height: Int

    /**
     * Writes row [y] to the first 3 * [width] bytes of [into]: red, green, blue, 0..255.
     *
     * [Preprocess.preprocess] asks for rows from the top down, for each at most once, and leaves out those that are
     * cropped.
     */
    public fun row(y: Int, into: ByteArray)
}

/**
 * A picture as bytes: rows from the top, red, green, blue, 0..255, 3 * [width] * [height] in all.
 *
 * The bytes are not copied; do not change them while the picture is in use.
 *
 * @throws ImageException the sides are not positive, there are more than 178,956,970 pixels, or [bytes] has another
 *     size.
 */
public class RgbImage(
    override val width: Int,
    override val height: Int,
    public val bytes: ByteArray,
) : RowSource {
    init {
        checkPixels(width, height)
        if (bytes.size != 3 * width * height) {
            throw ImageException(
                "got ${bytes.size} bytes for a picture of ${width}x$height; RGB takes ${3 * width * height}",
            )
        }
    }

    override fun row(y: Int, into: ByteArray) {
        System.arraycopy(bytes, 3 * width * y, into, 0, 3 * width)
    }
}

/** The largest picture that is taken, as in the Python code; its bytes still fit an array. */
internal const val MAX_PIXELS = 178_956_970

internal fun checkPixels(width: Int, height: Int) {
    if (width < 1 || height < 1) throw ImageException("a picture of ${width}x$height has no pixels")
    if (width.toLong() * height > MAX_PIXELS) {
        throw ImageException("a picture of ${width}x$height has more than $MAX_PIXELS pixels; scale it down first")
    }
}
