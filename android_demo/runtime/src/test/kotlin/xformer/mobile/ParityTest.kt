package xformer.mobile

import java.io.File
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import org.junit.jupiter.api.AfterAll
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory
import xformer.mobile.core.Bundle
import xformer.mobile.core.Engine
import xformer.mobile.core.Format
import xformer.mobile.core.Outputs
import xformer.mobile.core.RgbImage
import xformer.mobile.core.Tensor

/** Every bundle and format against what Python makes of the same pictures. Writes target/parity.json and .md. */
class ParityTest {
    @TestFactory
    fun `Python makes the same of the same pictures`(): List<DynamicTest> = Fixtures.NAMES.flatMap { name ->
        val bundle = Bundle.open(File(Fixtures.bundles, name))
        check(bundle.formats.containsAll(listOf(Format.ONNX, Format.TFLITE)))
        bundle.formats.map { format -> dynamicTest("$name, ${format.id}") { compare(bundle, name, format) } }
    }

    private fun compare(bundle: Bundle, name: String, format: Format) {
        val row = Parity.measure(Fixtures.bundles, name, format)
        rows += row
        assertEquals(emptyList(), row.misses + row.golden.misses)
        assertTrue(row.golden.passed)
        assertEquals(row.pictures, row.sameInputs)
        assertEquals(row.pictures, row.sameResults)
        assertEquals(0, row.otherPixels)
        assertTrue(row.pictures >= 10 && row.golden.images >= 3)
        // LiteRT is the release that the bundle was verified with: the same figures must come out here.
        if (format == Format.TFLITE) {
            val stated = bundle.manifest.parity.getValue(format.id)
            for (output in row.golden.outputs) {
                assertNear(stated.outputs.getValue(output.name).getValue("relative_max"), output.relativeMax)
                assertNear(stated.outputs.getValue(output.name).getValue("snr_db"), output.snrDb)
            }
            assertNear(stated.agreement.share, row.golden.agreement.share)
        }
    }

    private fun assertNear(expected: Double?, found: Double) {
        assertTrue(abs(checkNotNull(expected) - found) <= 1e-6 * abs(expected), "$found, not $expected")
    }

    @Test
    fun `an engine that is a little off is found out`() {
        for (name in listOf("classify-fp32", "detect-fp32", "segment-fp32")) {
            val row = Parity.measure(Fixtures.bundles, name, Format.ONNX) { engine ->
                Altered(engine) { _, value -> 1.02f * value + 0.01f }
            }
            assertTrue(row.misses.any { "of its range" in it }, "$name: ${row.misses}")
            assertFalse(row.golden.passed)
        }
    }

    @Test
    fun `one class, box or region that is another is found out in the results too`() {
        val changes = mapOf(
            "classify-fp32" to { place: Int, value: Float -> if (place == 3) value + 20 else value },
            "detect-fp32" to { place: Int, value: Float -> if (place % 97 == 0) value + 9 else value },
        )
        for ((name, change) in changes) {
            val row = Parity.measure(Fixtures.bundles, name, Format.ONNX) { Altered(it, change) }
            assertEquals(0, row.sameResults, name)
        }
        // Where the outputs are that far apart, each pixel is a tie within their difference: that itself is the miss.
        val change = { place: Int, value: Float -> if (place < 64) value + 50 else value }
        val row = Parity.measure(Fixtures.bundles, "segment-fp32", Format.ONNX) { Altered(it, change) }
        assertTrue(row.otherPixels > 0 && row.misses.isNotEmpty())
    }

    /** An engine whose outputs are changed. */
    private class Altered(private val inner: Engine, private val change: (Int, Float) -> Float) : Engine by inner {
        override fun run(image: RgbImage): Outputs = inner.run(image).mapValues { (_, tensor) ->
            Tensor(tensor.shape, FloatArray(tensor.values.size) { change(it, tensor.values[it]) })
        }
    }

    private companion object {
        val rows = mutableListOf<ParityRow>()

        @JvmStatic
        @AfterAll
        fun report() {
            File("target/parity.json").writeText(Parity.toJson(rows).toString() + "\n")
            File("target/parity.md").writeText(Parity.toMarkdown(rows))
        }
    }
}
