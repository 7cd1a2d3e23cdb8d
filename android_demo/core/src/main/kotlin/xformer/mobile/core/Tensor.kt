package xformer.mobile.core

/**
 * Float32 values of a [shape], row-major. The arrays are not copied.
 *
 * @throws UsageException [shape] and [values] do not fit each other.
 */
public class Tensor(public val shape: IntArray, public val values: FloatArray) {
    init {
        if (shape.any { it < 1 } || volume(shape) != values.size.toLong()) {
            throw UsageException("got ${values.size} values for a tensor of ${describe(shape)}")
        }
    }

    /** Whether no value is NaN or infinite. */
    public fun isFinite(): Boolean = values.all(Float::isFinite)
}

/** What an artifact returns for one picture, by output name. */
public typealias Outputs = Map<String, Tensor>

/** The number of values of a shape; [Long.MAX_VALUE] where it is larger still. */
internal fun volume(shape: IntArray): Long = shape.fold(1L) { product, side ->
    if (product > Long.MAX_VALUE / side) Long.MAX_VALUE else product * side
}

/** A shape in words: (1, 80, 8, 8). */
internal fun describe(shape: IntArray): String = shape.joinToString(", ", "(", ")")
