package xformer.mobile.core

import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

/** The size of an anchor in input pixels. */
public data class Anchor(val width: Float, val height: Float)

/**
 * What turns YOLOv3 maps (arXiv 1804.02767) into boxes.
 *
 * [anchors] are by scale, finest first; [strides] are the scales' in pixels. A class whose score reaches
 * [scoreThreshold] is a candidate; of two candidates of one class that overlap by more than [iouThreshold], the one
 * with the higher score is kept; at most [maxDetections] are.
 *
 * @throws UsageException there are not as many strides as scales of anchors, or none.
 */
public data class DetectionRule(
    val anchors: List<List<Anchor>>,
    val strides: List<Int>,
    val scoreThreshold: Float = 0.25f,
    val iouThreshold: Float = 0.45f,
    val maxDetections: Int = 100,
) {
    init {
        if (strides.isEmpty() || strides.size != anchors.size) {
            throw UsageException("${strides.size} strides for ${anchors.size} scales of anchors; give one a scale")
        }
    }
}

/**
 * From raw outputs to a typed result: sections 5 to 8 of docs/preprocessing.md. May be called from any thread.
 *
 * [topK] is for [Task.CLASSIFY]; [detection] for [Task.DETECT]; [palette], a color for each class, for [Task.SEGMENT].
 *
 * @throws UsageException a detector without [detection].
 */
public class Postprocess(
    public val task: Task,
    public val labels: List<String>,
    public val topK: Int = 5,
    public val detection: DetectionRule? = null,
    public val palette: List<Rgb> = emptyList(),
) {
    init {
        if (task == Task.DETECT && detection == null) {
            throw UsageException("postprocessing of boxes needs a DetectionRule; give detection")
        }
    }

    /**
     * The result for one picture: [Classifications], [Detections] with boxes in source pixels, or a [ClassMap] of the
     * source's size.
     *
     * @throws BundleException an output is missing, has another shape, or is not finite.
     */
    public operator fun invoke(outputs: Outputs, fit: Fit): Prediction = when (task) {
        Task.CLASSIFY -> classify(finite(outputs))
        Task.DETECT -> Detections(detect(finite(outputs), checkNotNull(detection), labels, fit))
        Task.SEGMENT -> segmentAt(outputs, fit.source)
    }

    /**
     * The class map at a size other than the source's, such as a preview's.
     *
     * @throws BundleException an output is missing, has another shape, or is not finite.
     * @throws UsageException the task is another, or [size] has no pixels or more than 178,956,970.
     */
    public fun segmentAt(outputs: Outputs, size: Size): ClassMap {
        if (task != Task.SEGMENT) throw UsageException("class maps are of the task segment, not ${task.id}")
        if (size.width < 1 || size.height < 1 || size.width.toLong() * size.height > MAX_PIXELS) {
            throw UsageException(
                "a class map of ${size.width}x${size.height} can't be made; its pixels must be from 1 to $MAX_PIXELS",
            )
        }
        return segment(output(finite(outputs), LOGITS, 4, labels.size), labels, size)
    }

    private fun classify(outputs: Outputs): Classifications {
        val logits = output(outputs, LOGITS, 2, labels.size).values
        val highest = logits.max().toDouble()
        val exponentials = DoubleArray(logits.size) { exp(logits[it] - highest) }
        val total = exponentials.sum()
        val order = fallingOrder(logits)
        val most = min(topK, logits.size)
        return Classifications(order.take(most).map { Classification(it, labels[it], exponentials[it] / total) })
    }

    public companion object {
        /** One color a class, far apart for neighbours: the bit-reversal colormap of PASCAL VOC. */
        public fun defaultPalette(classes: Int): List<Rgb> = List(classes) { index ->
            val (red, green, blue) = List(3) { channel ->
                (0 until 8).sumOf { bit -> (index shr (3 * bit + channel) and 1) shl (7 - bit) }
            }
            Rgb(red, green, blue)
        }
    }
}

internal const val LOGITS = "logits"

private fun finite(outputs: Outputs): Outputs {
    for ((name, tensor) in outputs) {
        if (!tensor.isFinite()) {
            throw BundleException("the artifact returned values that are NaN or infinite in '$name'")
        }
    }
    return outputs
}

/** The output of that name, (1, channels, ...) and of that rank. */
private fun output(outputs: Outputs, name: String, rank: Int, channels: Int): Tensor {
    val tensor = outputs[name]
        ?: throw BundleException("the artifact returned ${outputs.keys.joinToString()}; it has no output '$name'")
    val shape = tensor.shape
    if (shape.size != rank || shape[0] != 1 || shape[1] != channels) {
        throw BundleException(
            "the artifact returned '$name' of ${describe(shape)}; its rank must be $rank, and it must begin with " +
                "(1, $channels)",
        )
    }
    return tensor
}

/** The indices of the values, the largest first; of equal ones, the lower index first. NaN has no place. */
internal fun fallingOrder(values: FloatArray): IntArray {
    // Sorted as numbers of 64 bits: above, what falls as the value rises; below, the index.
    val keys = LongArray(values.size) { index ->
        val bits = (values[index] + 0f).toRawBits() // -0 becomes 0: they are equal
        val rising = if (bits >= 0) bits else bits xor Int.MAX_VALUE
        (rising.inv().toLong() shl 32) or index.toLong()
    }
    keys.sort()
    return IntArray(keys.size) { keys[it].toInt() }
}

// ---- boxes --------------------------------------------------------------------------------------------------

/** tw and th are clamped to this before exp, so that a wild logit is a large box and not an overflow. */
private const val MAX_LOG_SCALE = 10f

/** Decodes the maps, suppresses overlaps. Boxes are in pixels of the fit's source. */
internal fun detect(outputs: Outputs, rule: DetectionRule, labels: List<String>, fit: Fit): List<Detection> {
    val candidates = Candidates()
    for ((stride, anchors) in rule.strides.zip(rule.anchors)) {
        val map = output(outputs, "stride$stride", 4, anchors.size * (5 + labels.size))
        collect(map, anchors, stride, labels.size, rule.scoreThreshold, fit, candidates)
    }
    val order = fallingOrder(candidates.scores())
    return suppress(candidates, order, rule).map { i ->
        val index = candidates.classAt(i)
        Detection(index, labels[index], candidates.scoreAt(i), candidates.boxAt(i))
    }
}

/** Adds the candidates of one map in the order anchor, row, column, class. */
private fun collect(
    map: Tensor,
    anchors: List<Anchor>,
    stride: Int,
    classes: Int,
    threshold: Float,
    fit: Fit,
    candidates: Candidates,
) {
    val values = map.values
    val height = map.shape[2]
    val width = map.shape[3]
    val plane = height * width
    for ((number, anchor) in anchors.withIndex()) {
        for (cell in 0 until plane) {
            val at = number * (5 + classes) * plane + cell
            val objectness = sigmoid(values[at + 4 * plane])
            // No class has a probability above 1, so none would reach the threshold.
            if (!(objectness >= threshold)) continue
            var box: Box? = null
            for (index in 0 until classes) {
                val score = objectness * sigmoid(values[at + (5 + index) * plane])
                if (!(score >= threshold)) continue
                if (box == null) {
                    box = decode(values, at, plane, cell % width, cell / width, anchor, stride, fit)
                }
                // Without area, which a box outside the picture has not either once it is clipped.
                if (!(box.x2 > box.x1 && box.y2 > box.y1)) break
                candidates.add(box, score, index)
            }
        }
    }
}

private fun decode(
    values: FloatArray,
    at: Int,
    plane: Int,
    column: Int,
    row: Int,
    anchor: Anchor,
    stride: Int,
    fit: Fit,
): Box {
    val centreX = (sigmoid(values[at]) + column) * stride
    val centreY = (sigmoid(values[at + plane]) + row) * stride
    val halfWidth = anchor.width * exp(min(values[at + 2 * plane], MAX_LOG_SCALE)) / 2
    val halfHeight = anchor.height * exp(min(values[at + 3 * plane], MAX_LOG_SCALE)) / 2
    val scaleX = fit.source.width.toFloat() / fit.resized.width
    val scaleY = fit.source.height.toFloat() / fit.resized.height
    fun toSourceX(x: Float): Float = ((x - fit.offset.x) * scaleX).coerceIn(0f, fit.source.width.toFloat())
    fun toSourceY(y: Float): Float = ((y - fit.offset.y) * scaleY).coerceIn(0f, fit.source.height.toFloat())
    return Box(
        toSourceX(centreX - halfWidth),
        toSourceY(centreY - halfHeight),
        toSourceX(centreX + halfWidth),
        toSourceY(centreY + halfHeight),
    )
}

private fun sigmoid(x: Float): Float {
    val decay = exp(-abs(x))
    return (if (x >= 0) 1f else decay) / (1f + decay)
}

/** Boxes with score and class, in growing arrays: there may be a million. */
private class Candidates {
    private var boxes = FloatArray(4 * 64)
    private var scores = FloatArray(64)
    private var classes = IntArray(64)
    private var size = 0

    fun add(box: Box, score: Float, index: Int) {
        if (size == scores.size) {
            boxes = boxes.copyOf(8 * size)
            scores = scores.copyOf(2 * size)
            classes = classes.copyOf(2 * size)
        }
        boxes[4 * size] = box.x1
        boxes[4 * size + 1] = box.y1
        boxes[4 * size + 2] = box.x2
        boxes[4 * size + 3] = box.y2
        scores[size] = score
        classes[size++] = index
    }

    fun scores(): FloatArray = scores.copyOf(size)

    fun scoreAt(i: Int): Float = scores[i]

    fun classAt(i: Int): Int = classes[i]

    fun boxAt(i: Int): Box = Box(boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3])
}

/** Greedy class-wise non-maximum suppression; returns the kept candidates in order. */
private fun suppress(candidates: Candidates, order: IntArray, rule: DetectionRule): List<Int> {
    val kept = mutableListOf<Int>()
    val boxesByClass = HashMap<Int, MutableList<Box>>()
    for (i in order) {
        if (kept.size >= rule.maxDetections) break
        val box = candidates.boxAt(i)
        val others = boxesByClass.getOrPut(candidates.classAt(i)) { mutableListOf() }
        if (others.none { overlaps(it, box, rule.iouThreshold) }) {
            kept += i
            others += box
        }
    }
    return kept
}

private fun overlaps(a: Box, b: Box, threshold: Float): Boolean {
    val width = max(min(a.x2, b.x2) - max(a.x1, b.x1), 0f)
    val height = max(min(a.y2, b.y2) - max(a.y1, b.y1), 0f)
    val overlap = width * height
    val union = area(a) + area(b) - overlap
    return overlap > threshold * union
}

private fun area(box: Box): Float = (box.x2 - box.x1) * (box.y2 - box.y1)

// ---- class maps ---------------------------------------------------------------------------------------------

/**
 * The class of the largest logit at each pixel; of equal ones, the lowest index.
 *
 * Row by row, so that only one row of all classes is in memory: the rows of the logits are interpolated first, then
 * the columns.
 */
private fun segment(logits: Tensor, labels: List<String>, size: Size): ClassMap {
    val (_, classes, rows, columns) = logits.shape
    val values = logits.values
    val down = Interpolation(rows, size.height)
    val across = Interpolation(columns, size.width)
    val row = FloatArray(columns * classes) // all classes of a column lie together
    val map = ShortArray(size.width * size.height)
    var to = 0
    for (y in 0 until size.height) {
        val top = down.first[y] * columns
        val bottom = down.second[y] * columns
        val weight = down.weight[y]
        for (index in 0 until classes) {
            val plane = index * rows * columns
            for (column in 0 until columns) {
                val above = values[plane + top + column]
                row[column * classes + index] = above + (values[plane + bottom + column] - above) * weight
            }
        }
        for (x in 0 until size.width) {
            map[to++] = best(row, across.first[x] * classes, across.second[x] * classes, across.weight[x], classes)
        }
    }
    return ClassMap(size.width, size.height, map, labels)
}

private fun best(row: FloatArray, left: Int, right: Int, weight: Float, classes: Int): Short {
    var best = 0
    var highest = row[left] + (row[right] - row[left]) * weight
    for (index in 1 until classes) {
        val a = row[left + index]
        val value = a + (row[right + index] - a) * weight
        if (value > highest) {
            highest = value
            best = index
        }
    }
    return best.toShort()
}

/** For each of [target] positions: the two of [size] samples around it, and the weight of the second. */
private class Interpolation(size: Int, target: Int) {
    val first = IntArray(target)
    val second = IntArray(target)
    val weight = FloatArray(target)

    init {
        for (i in 0 until target) {
            val position = ((i + 0.5) * (size.toDouble() / target) - 0.5).coerceIn(0.0, size - 1.0)
            first[i] = floor(position).toInt()
            second[i] = min(first[i] + 1, size - 1)
            weight[i] = (position - first[i]).toFloat()
        }
    }
}
