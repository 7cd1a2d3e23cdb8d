package xformer.mobile.core

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import kotlin.math.abs
import kotlin.math.exp
import kotlin.random.Random
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class PostprocessTest {
    private val labels = listOf("cat", "dog", "cup")
    private val classify = Postprocess(Task.CLASSIFY, labels)
    private val segment = Postprocess(Task.SEGMENT, labels)
    private val rule = DetectionRule(
        anchors = listOf(listOf(Anchor(10f, 13f), Anchor(16f, 8f)), listOf(Anchor(30f, 24f))),
        strides = listOf(8, 16),
    )
    private val detect = Postprocess(Task.DETECT, labels, detection = rule)

    private fun fit(width: Int, height: Int, rule: ResizeRule = ResizeRule.RESIZE): Fit =
        Fit.of(Size(width, height), ImageSize(64, 64), rule)

    private fun logits(vararg values: Float): Outputs = mapOf("logits" to Tensor(intArrayOf(1, values.size), values))

    private fun map(classes: Int, height: Int, width: Int, value: (Int) -> Float): Outputs =
        mapOf("logits" to Tensor(intArrayOf(1, classes, height, width), FloatArray(classes * height * width, value)))

    private fun boxMaps(value: (Int) -> Float): Outputs = mapOf(
        "stride8" to Tensor(intArrayOf(1, 16, 8, 8), FloatArray(1024, value)),
        "stride16" to Tensor(intArrayOf(1, 8, 4, 4), FloatArray(128, value)),
    )

    // ---- classes --------------------------------------------------------------------------------------------

    private class Order(val logits: List<Float>, val expected: List<Int>)

    private val orders = mapOf(
        "rising" to Order(listOf(1f, 2f, 3f), listOf(2, 1, 0)),
        "equal ones by index" to Order(listOf(1f, 2f, 2f), listOf(1, 2, 0)),
        "zeros of both signs are equal" to Order(listOf(-0f, 0f, -0f), listOf(0, 1, 2)),
        "negative ones" to Order(listOf(-3f, -1f, -2f), listOf(1, 2, 0)),
        "denormal ones" to Order(listOf(0f, Float.MIN_VALUE, -Float.MIN_VALUE), listOf(1, 0, 2)),
        "the largest" to Order(listOf(-Float.MAX_VALUE, Float.MAX_VALUE, 0f), listOf(1, 2, 0)),
    )

    @TestFactory
    fun `classes by falling logit`(): List<DynamicTest> = orders.map { (name, order) ->
        dynamicTest(name) {
            val found = classify(logits(*order.logits.toFloatArray()), fit(1, 1)) as Classifications
            assertEquals(order.expected, found.map { it.index })
            assertEquals(order.expected.map { labels[it] }, found.map { it.label })
        }
    }

    @Test
    fun `drawn probabilities add up to one and fall`() {
        forSeeds(100) { random ->
            val count = random.nextInt(1, 60)
            val scale = if (random.nextBoolean()) 1e-40f else 200f
            val values = FloatArray(count) { (random.nextFloat() - 0.5f) * scale }
            val names = List(count) { "label $it" }
            val found = Postprocess(Task.CLASSIFY, names, topK = count)(logits(*values), fit(1, 1)) as Classifications
            assertEquals(1.0, found.sumOf { it.probability }, 1e-9)
            val expected = values.indices.sortedWith(compareByDescending<Int> { values[it] + 0f }.thenBy { it })
            assertEquals(expected, found.map { it.index })
            assertTrue(found.zipWithNext().all { (one, next) -> one.probability >= next.probability })
        }
    }

    @Test
    fun `no more classes than there are, no more than are asked for`() {
        val outputs = logits(1f, 2f, 3f)
        assertEquals(3, (Postprocess(Task.CLASSIFY, labels, topK = 9)(outputs, fit(1, 1)) as List<*>).size)
        assertEquals(2, (Postprocess(Task.CLASSIFY, labels, topK = 2)(outputs, fit(1, 1)) as List<*>).size)
    }

    // ---- boxes ----------------------------------------------------------------------------------------------

    /** What detect does, word by word from section 6 of docs/preprocessing.md, with lists. */
    private fun expected(outputs: Outputs, rule: DetectionRule, fit: Fit): List<Detection> {
        fun sigmoid(x: Float): Float {
            val decay = exp(-abs(x))
            return if (x >= 0) 1f / (1f + decay) else decay / (1f + decay)
        }
        val candidates = mutableListOf<Detection>()
        for ((scale, stride) in rule.strides.withIndex()) {
            val tensor = outputs.getValue("stride$stride")
            val (_, channels, height, width) = tensor.shape
            val cells = (0 until height).flatMap { row -> (0 until width).map { column -> row to column } }
            for ((a, anchor) in rule.anchors[scale].withIndex()) {
                for ((row, column) in cells) {
                    fun channel(c: Int) =
                        tensor.values[((a * channels / rule.anchors[scale].size + c) * height + row) * width + column]
                    val cx = (sigmoid(channel(0)) + column) * stride
                    val cy = (sigmoid(channel(1)) + row) * stride
                    val hw = anchor.width * exp(minOf(channel(2), 10f)) / 2
                    val hh = anchor.height * exp(minOf(channel(3), 10f)) / 2
                    fun x(x: Float) = ((x - fit.offset.x) * (fit.source.width.toFloat() / fit.resized.width))
                        .coerceIn(0f, fit.source.width.toFloat())
                    fun y(y: Float) = ((y - fit.offset.y) * (fit.source.height.toFloat() / fit.resized.height))
                        .coerceIn(0f, fit.source.height.toFloat())
                    val box = Box(x(cx - hw), y(cy - hh), x(cx + hw), y(cy + hh))
                    for (c in labels.indices) {
                        val score = sigmoid(channel(4)) * sigmoid(channel(5 + c))
                        if (score >= rule.scoreThreshold) candidates += Detection(c, labels[c], score, box)
                    }
                }
            }
        }
        val kept = mutableListOf<Detection>()
        val solid = candidates.filter { it.box.x2 > it.box.x1 && it.box.y2 > it.box.y1 }
        for (one in solid.sortedByDescending { it.score }) {
            if (kept.size == rule.maxDetections) break
            if (kept.none { it.index == one.index && overlap(it.box, one.box, rule.iouThreshold) }) kept += one
        }
        return kept
    }

    private fun overlap(a: Box, b: Box, threshold: Float): Boolean {
        val width = maxOf(minOf(a.x2, b.x2) - maxOf(a.x1, b.x1), 0f)
        val height = maxOf(minOf(a.y2, b.y2) - maxOf(a.y1, b.y1), 0f)
        val both = width * height
        return both > threshold * ((a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) - both)
    }

    @Test
    fun `drawn maps give the boxes of the page's formulas`() {
        var total = 0
        forSeeds(150) { random ->
            val fit = fit(random.nextInt(1, 300), random.nextInt(1, 300), ResizeRule.entries.random(random))
            val outputs = boxMaps { (random.nextFloat() - 0.5f) * if (random.nextInt(40) == 0) 90 else 6 }
            val drawn = rule.copy(
                scoreThreshold = listOf(0f, 0.25f, 0.5f, 1f).random(random),
                iouThreshold = listOf(0f, 0.45f, 1f).random(random),
                maxDetections = random.nextInt(1, 200),
            )
            val found = Postprocess(Task.DETECT, labels, detection = drawn)(outputs, fit) as Detections
            assertEquals(expected(outputs, drawn, fit), found.all)
            total += found.size
        }
        assertTrue(total > 1000, "only $total boxes: the test says little")
    }

    @Test
    fun `no candidate is no box`() {
        assertEquals(Detections(emptyList()), detect(boxMaps { -20f }, fit(100, 80)))
    }

    @Test
    fun `a score of the threshold is a candidate, one below is not`() {
        fun found(threshold: Float): Int {
            val rule = rule.copy(scoreThreshold = threshold, maxDetections = 1)
            // sigmoid(0) is exactly a half, its square a quarter.
            return (Postprocess(Task.DETECT, labels, detection = rule)(boxMaps { 0f }, fit(64, 64)) as Detections).size
        }
        assertEquals(1, found(0.25f))
        assertEquals(0, found(Math.nextUp(0.25f)))
    }

    @Test
    fun `a million candidates are no trouble`() {
        val many = List(80) { "label $it" }
        val rule = DetectionRule(listOf(List(3) { Anchor(8f, 8f) }), listOf(8), 0f, 0.45f, 300)
        val side = 64
        val values = Drawn(3).floats(3 * 85 * side * side)
        val outputs = mapOf("stride8" to Tensor(intArrayOf(1, 3 * 85, side, side), values))
        val found = Postprocess(Task.DETECT, many, detection = rule)(outputs, fit(512, 512)) as Detections
        assertEquals(300, found.size)
        assertTrue(found.zipWithNext().all { (one, next) -> one.score >= next.score })
    }

    // ---- class maps -----------------------------------------------------------------------------------------

    @Test
    fun `drawn class maps are those of the page's formulas`() {
        forSeeds(80) { random ->
            val classes = random.nextInt(1, 6)
            val height = random.nextInt(1, 12)
            val width = random.nextInt(1, 12)
            val size = Size(random.nextInt(1, 60), random.nextInt(1, 60))
            val outputs = map(classes, height, width) { random.nextInt(-3, 4) / 4f } // many ties
            val names = List(classes) { "label $it" }
            val found = Postprocess(Task.SEGMENT, names).segmentAt(outputs, size)
            val values = outputs.getValue("logits").values
            fun tap(i: Int, n: Int, m: Int): Triple<Int, Int, Float> {
                val position = ((i + 0.5) * (n.toDouble() / m) - 0.5).coerceIn(0.0, n - 1.0)
                val a = position.toInt()
                return Triple(a, minOf(a + 1, n - 1), (position - a).toFloat())
            }
            for (at in 0 until size.width * size.height) {
                val x = at % size.width
                val y = at / size.width
                val (top, bottom, down) = tap(y, height, size.height)
                val (left, right, across) = tap(x, width, size.width)
                val z = List(classes) { c ->
                    fun v(row: Int, column: Int) = values[(c * height + row) * width + column]
                    val a = v(top, left) + (v(bottom, left) - v(top, left)) * down
                    val b = v(top, right) + (v(bottom, right) - v(top, right)) * down
                    a + (b - a) * across
                }
                assertEquals(z.indexOf(z.max()), found.classAt(x, y), "at ($x, $y)")
            }
        }
    }

    @Test
    fun `a class map of the source's size or of another`() {
        val outputs = map(3, 16, 16) { Random(it).nextFloat() }
        val whole = segment(outputs, fit(40, 30)) as ClassMap
        assertEquals(Size(40, 30), Size(whole.width, whole.height))
        val same = segment.segmentAt(outputs, Size(40, 30))
        assertContentEquals(whole.classes, same.classes)
        val small = segment.segmentAt(outputs, Size(16, 16))
        val values = outputs.getValue("logits").values
        assertEquals(List(256) { at -> (0 until 3).maxBy { values[256 * it + at] } }, small.classes.map { it.toInt() })
    }

    @Test
    fun `a class map of 12 megapixels takes no memory for its classes`() {
        // The tests have a heap of 256 MB, and 20 classes of 12 megapixels in floats are 960.
        val many = List(20) { "label $it" }
        val outputs = map(20, 4, 4) { if (it / 16 == 19) 1f else 0f }
        val map = Postprocess(Task.SEGMENT, many).segmentAt(outputs, Size(400, 30_000))
        assertEquals(listOf(ClassShare(19, "label 19", 1.0)), map.shares())
    }

    @Test
    fun `shares, colors and single pixels of a class map`() {
        val map = ClassMap(3, 2, shortArrayOf(2, 2, 0, 1, 2, 0), labels)
        assertEquals(listOf(2, 2, 0, 1, 2, 0), List(6) { map.classAt(it % 3, it / 3) })
        assertEquals(
            listOf(ClassShare(2, "cup", 0.5), ClassShare(0, "cat", 1.0 / 3), ClassShare(1, "dog", 1.0 / 6)),
            map.shares(),
        )
        val palette = listOf(Rgb(255, 0, 1), Rgb(2, 3, 4), Rgb(0, 128, 255))
        val expected = listOf(0x800080FF, 0x800080FF, 0x80FF0001, 0x80020304, 0x800080FF, 0x80FF0001)
        assertEquals(expected.map { it.toInt() }, map.toArgb(palette, alpha = 128).toList())
        assertEquals(0xFF020304.toInt(), map.toArgb(palette)[3])
    }

    @Test
    fun `classes above 32767 are not negative`() {
        val many = List(65_536) { "label $it" }
        val map = ClassMap(2, 1, shortArrayOf(-1, Short.MIN_VALUE), many)
        assertEquals(65_535, map.classAt(0, 0))
        assertEquals(listOf(32_768, 65_535), map.shares().map { it.index })
        val palette = List(65_536) { Rgb(it shr 8, it and 0xff, 0) }
        assertEquals(listOf(0xFFFFFF00.toInt(), 0xFF800000.toInt()), map.toArgb(palette).toList())
    }

    // ---- what is refused ------------------------------------------------------------------------------------

    @TestFactory
    fun `values that are not finite are refused in every task`(): List<DynamicTest> {
        val bad = listOf(Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY)
        return bad.flatMap { value ->
            val other = logits(0f, 0f, 0f) + ("other" to Tensor(intArrayOf(1), floatArrayOf(value)))
            listOf(
                Triple("classify", classify, logits(0f, value, 0f)),
                Triple("detect", detect, boxMaps { if (it == 127) value else 0f }),
                Triple("segment", segment, map(3, 4, 4) { if (it == 47) value else 0f }),
                Triple("another output", classify, other),
            ).map { (task, postprocess, outputs) ->
                dynamicTest("$value in $task") {
                    val message = refusal<BundleException> { postprocess(outputs, fit(5, 5)) }
                    assertContains(message, "the artifact returned values that are NaN or infinite in '")
                }
            }
        }
    }

    @Test
    fun `drawn floats of any bits give a result or a refusal`() {
        forSeeds(200) { random ->
            fun any(): Float = when (random.nextInt(3)) {
                0 -> Float.fromBits(random.nextInt())
                1 -> listOf(0f, -0f, Float.MIN_VALUE, Float.MAX_VALUE, -Float.MAX_VALUE, 88.8f, -103.9f).random(random)
                else -> random.nextFloat() * 8 - 4
            }
            val few = random.nextInt(4) > 0 // mostly finite ones
            fun value(): Float = any().let { if (few && !it.isFinite()) 0f else it }
            val cases = listOf(
                classify to logits(value(), value(), value()),
                detect to boxMaps { value() },
                segment to map(3, 4, 5) { value() },
            )
            for ((postprocess, outputs) in cases) {
                val isFinite = outputs.values.all { it.isFinite() }
                try {
                    val result = postprocess(outputs, fit(random.nextInt(1, 99), random.nextInt(1, 99)))
                    assertTrue(isFinite)
                    if (result is Detections) assertTrue(result.all { it.score in 0f..1f && it.box.x2 > it.box.x1 })
                    if (result is Classifications) assertTrue(result.all { it.probability in 0.0..1.0 })
                } catch (_: BundleException) {
                    assertTrue(!isFinite)
                }
            }
        }
    }

    private class Foreign(val postprocess: Postprocess, val outputs: Outputs, val problem: String)

    private val foreign = mapOf(
        "no logits" to Foreign(classify, boxMaps { 0f }, "has no output 'logits'"),
        "logits of another rank" to Foreign(classify, map(3, 1, 1) { 0f }, "its rank must be 2"),
        "logits of other classes" to Foreign(classify, logits(0f, 0f), "must begin with (1, 3)"),
        "a scale missing" to Foreign(detect, boxMaps { 0f } - "stride16", "has no output 'stride16'"),
        "a scale of other channels" to
            Foreign(detect, boxMaps { 0f } + ("stride16" to Tensor(intArrayOf(1, 7, 1, 1), FloatArray(7))), "(1, 8)"),
        "map of two pictures" to
            Foreign(segment, mapOf("logits" to Tensor(intArrayOf(2, 3, 1, 1), FloatArray(6))), "(1, 3)"),
    )

    @TestFactory
    fun `outputs of another model are refused`(): List<DynamicTest> = foreign.map { (name, case) ->
        dynamicTest(name) {
            assertContains(refusal<BundleException> { case.postprocess(case.outputs, fit(5, 5)) }, case.problem)
        }
    }

    @Test
    fun `calls that can't be right are refused`() {
        assertFailsWith<UsageException> { classify.segmentAt(logits(0f, 0f, 0f), Size(4, 4)) }
        assertFailsWith<UsageException> { segment.segmentAt(map(3, 1, 1) { 0f }, Size(0, 4)) }
        assertFailsWith<UsageException> { segment.segmentAt(map(3, 1, 1) { 0f }, Size(20_000, 20_000)) }
        assertFailsWith<UsageException> { Postprocess(Task.DETECT, labels) }
        assertFailsWith<UsageException> { DetectionRule(emptyList(), emptyList()) }
        assertFailsWith<UsageException> { rule.copy(strides = listOf(8)) }
        assertFailsWith<UsageException> { Tensor(intArrayOf(2, 3), FloatArray(5)) }
        assertFailsWith<UsageException> { Tensor(intArrayOf(0, 3), FloatArray(0)) }
        assertFailsWith<UsageException> { Tensor(intArrayOf(1 shl 16, 1 shl 16), FloatArray(0)) }
        assertFailsWith<UsageException> { ClassMap(2, 2, ShortArray(3), labels) }
        assertFailsWith<UsageException> { ClassMap(1, 1, shortArrayOf(3), labels) }
        val map = ClassMap(1, 1, shortArrayOf(0), labels)
        assertFailsWith<UsageException> { map.classAt(1, 0) }
        assertFailsWith<UsageException> { map.classAt(0, -1) }
        assertFailsWith<UsageException> { map.toArgb(listOf(Rgb(0, 0, 0))) }
        assertFailsWith<UsageException> { map.toArgb(List(3) { Rgb(0, 0, 0) }, alpha = 256) }
    }

    @Test
    fun `results are lists like others`() {
        val one = Classification(1, "dog", 0.5)
        assertEquals<List<*>>(listOf(one), Classifications(listOf(one)))
        assertEquals<List<*>>(Classifications(listOf(one)), listOf(one))
        assertEquals(Classifications(listOf(one)), Classifications(listOf(one)))
        assertEquals(listOf(one).hashCode(), Classifications(listOf(one)).hashCode())
        assertEquals("[]", Detections(emptyList()).toString())
    }
}
