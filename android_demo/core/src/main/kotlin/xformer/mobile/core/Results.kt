package xformer.mobile.core

/** What a model found in a picture. */
public sealed interface Prediction

/** Class [index] named [label], with its [probability] in 0..1. */
public data class Classification(val index: Int, val label: String, val probability: Double)

/** The most probable classes, the most probable first. */
public class Classifications(public val all: List<Classification>) : Prediction, List<Classification> by all {
    override fun equals(other: Any?): Boolean = all == other

    override fun hashCode(): Int = all.hashCode()

    override fun toString(): String = all.toString()
}

/** Corners in pixels of the source picture, x to the right and y down, clipped to the picture. */
public data class Box(val x1: Float, val y1: Float, val x2: Float, val y2: Float)

/** One object: its class, [score] (objectness times class probability, 0..1) and [box]. */
public data class Detection(val index: Int, val label: String, val score: Float, val box: Box)

/** The objects in a picture, the highest score first. */
public class Detections(public val all: List<Detection>) : Prediction, List<Detection> by all {
    override fun equals(other: Any?): Boolean = all == other

    override fun hashCode(): Int = all.hashCode()

    override fun toString(): String = all.toString()
}

/** The [share] of a picture's pixels, 0..1, that are of class [index] named [label]. */
public data class ClassShare(val index: Int, val label: String, val share: Double)

/**
 * A class for each pixel: [classes] are [height] rows of [width], from the top, as unsigned 16-bit numbers.
 *
 * @throws UsageException [classes] has another size, or a class that [labels] does not name.
 */
public class ClassMap(
    public val width: Int,
    public val height: Int,
    public val classes: ShortArray,
    public val labels: List<String>,
) : Prediction {
    init {
        if (width < 1 || height < 1 || classes.size.toLong() != width.toLong() * height) {
            throw UsageException("got ${classes.size} classes for a map of ${width}x$height")
        }
        if (classes.any { it.toInt() and 0xffff >= labels.size }) {
            throw UsageException("a class map has a class that none of its ${labels.size} labels names")
        }
    }

    /** The class at a pixel, an index into [labels]. */
    public fun classAt(x: Int, y: Int): Int {
        if (x !in 0 until width || y !in 0 until height) {
            throw UsageException("($x, $y) is outside the class map of ${width}x$height")
        }
        return classes[y * width + x].toInt() and 0xffff
    }

    /** Each class that occurs, the largest first; of equal ones, the lower index. */
    public fun shares(): List<ClassShare> {
        val counts = IntArray(labels.size)
        for (value in classes) counts[value.toInt() and 0xffff]++
        return counts.indices
            .filter { counts[it] > 0 }
            .sortedByDescending { counts[it] }
            .map { ClassShare(it, labels[it], counts[it].toDouble() / classes.size) }
    }

    /**
     * The map in colors, one for each class, as ARGB pixels; [alpha] 0..255 for all.
     *
     * @throws UsageException there are fewer colors than classes, or [alpha] is out of range.
     */
    public fun toArgb(palette: List<Rgb>, alpha: Int = 255): IntArray {
        if (palette.size < labels.size) {
            throw UsageException("${palette.size} colors for ${labels.size} classes; give one color a class")
        }
        if (alpha !in 0..255) throw UsageException("alpha $alpha is not valid; valid: 0 to 255")
        val colors = IntArray(palette.size) { index ->
            val (red, green, blue) = palette[index]
            (alpha shl 24) or (red shl 16) or (green shl 8) or blue
        }
        return IntArray(classes.size) { colors[classes[it].toInt() and 0xffff] }
    }
}
