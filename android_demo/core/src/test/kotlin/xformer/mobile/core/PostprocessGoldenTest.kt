package xformer.mobile.core

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.double
import kotlinx.serialization.json.float
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals

/** The results that the Python code gives, within each file's tolerance; what has none is exact. */
class PostprocessGoldenTest {
    private val golden = Golden("postprocess")

    @TestFactory
    fun classify(): List<DynamicTest> {
        val document = golden.document("classify.json")
        val tolerance = document.getValue("tolerance").jsonObject.double("probability")
        return document.tests({ it.text("name") }) { case ->
            val logits = case.list("logits").map { it.jsonPrimitive.float }.toFloatArray()
            val labels = case.list("labels").map { it.jsonPrimitive.content }
            val rule = Postprocess(Task.CLASSIFY, labels, topK = case.int("top_k"))
            val found = rule(mapOf("logits" to Tensor(intArrayOf(1, logits.size), logits)), anyFit) as Classifications
            val expected = case.list("expected").map { it.jsonObject }
            assertEquals(
                expected.map { it.int("index") to it.text("label") },
                found.map { it.index to it.label },
            )
            for ((one, other) in expected.zip(found)) {
                assertEquals(one.double("probability"), other.probability, tolerance)
            }
        }
    }

    @TestFactory
    fun detect(): List<DynamicTest> {
        val document = golden.document("detect.json")
        val tolerance = document.getValue("tolerance").jsonObject
        return document.tests({ it.text("name") }) { case ->
            val labels = case.list("labels").map { it.jsonPrimitive.content }
            val rule = detectionRule(case.getValue("rule").jsonObject)
            val outputs = maps(case.getValue("maps").jsonObject, rule.strides)
            val fit = case.getValue("fit").jsonObject.fit()
            val found = Postprocess(Task.DETECT, labels, detection = rule)(outputs, fit) as Detections
            val expected = case.list("expected").map { it.jsonObject }
            assertEquals(expected.map { it.int("index") to it.text("label") }, found.map { it.index to it.label })
            for ((one, other) in expected.zip(found)) {
                assertEquals(one.double("score"), other.score.toDouble(), tolerance.double("score"))
                val corners = other.box.run { listOf(x1, y1, x2, y2) }
                for ((corner, value) in one.list("box").zip(corners)) {
                    assertEquals(corner.jsonPrimitive.double, value.toDouble(), tolerance.double("box"))
                }
            }
        }
    }

    @TestFactory
    fun segment(): List<DynamicTest> {
        val document = golden.document("segment.json")
        val tolerance = document.getValue("tolerance").jsonObject.double("share")
        return document.tests({ it.text("name") }) { case ->
            val labels = List(case.int("classes")) { "label $it" }
            val logits = case.getValue("logits").jsonObject
            val outputs = mapOf(
                "logits" to Tensor(logits.getValue("shape").ints(), golden.floats(logits.text("file"))),
            )
            val fit = case.getValue("fit").jsonObject.fit()
            val found = Postprocess(Task.SEGMENT, labels)(outputs, fit) as ClassMap
            val expected = case.getValue("expected").jsonObject
            assertContentEquals(expected.getValue("shape").ints(), intArrayOf(found.height, found.width))
            val classes = IntArray(found.classes.size) { found.classAt(it % found.width, it / found.width) }
            assertContentEquals(classes(expected), classes)
            val shares = expected.list("shares").map { it.jsonArray }
            assertEquals(shares.map { it[0].jsonPrimitive.int }, found.shares().map { it.index })
            for ((share, one) in shares.zip(found.shares())) {
                assertEquals(share[1].jsonPrimitive.double, one.share, tolerance)
            }
        }
    }

    @Test
    fun `default palette`() {
        val expected = golden.document("segment.json").list("palette").map { color ->
            val (red, green, blue) = color.ints()
            Rgb(red, green, blue)
        }
        assertEquals(expected, Postprocess.defaultPalette(expected.size))
    }

    private val anyFit = Size(64, 64).let { Fit(it, it, Point(0, 0), it) }

    private fun detectionRule(stated: JsonObject) = DetectionRule(
        anchors = stated.list("anchors").map { scale ->
            scale.jsonArray.map { anchor ->
                val (width, height) = anchor.jsonArray.map { it.jsonPrimitive.float }
                Anchor(width, height)
            }
        },
        strides = stated.list("strides").map { it.jsonPrimitive.int },
        scoreThreshold = stated.getValue("score_threshold").jsonPrimitive.float,
        iouThreshold = stated.getValue("iou_threshold").jsonPrimitive.float,
        maxDetections = stated.int("max_detections"),
    )

    private fun maps(stated: JsonObject, strides: List<Int>): Outputs {
        val values = golden.floats(stated.text("file"))
        var begin = 0
        return strides.zip(stated.list("shapes")).associate { (stride, shape) ->
            val size = volume(shape.ints()).toInt()
            begin += size
            "stride$stride" to Tensor(shape.ints(), values.copyOfRange(begin - size, begin))
        }
    }

    private fun classes(expected: JsonObject): IntArray {
        val bytes = golden.bytes(expected.text("file"))
        fun byte(at: Int) = bytes[at].toInt() and 0xff
        return if (expected.text("type") == "u8") {
            IntArray(bytes.size, ::byte)
        } else {
            IntArray(bytes.size / 2) { byte(2 * it) or (byte(2 * it + 1) shl 8) }
        }
    }
}
