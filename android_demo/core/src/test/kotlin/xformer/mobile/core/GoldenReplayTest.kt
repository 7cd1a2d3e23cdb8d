package xformer.mobile.core

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.io.TempDir
import java.io.File
import kotlin.math.pow
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** Against numbers that `compare` of xformer_mobile/parity/compare.py gives for the same drawn outputs. */
class GoldenReplayTest {
    @TempDir
    lateinit var temporary: File

    private val tolerance = """{"relative_max": 1e-4, "snr_db": 40, "agreement": 0.995}"""

    /** What the reference model returned for a golden input: drawn floats in -8 until 8. */
    private fun reference(picture: Int, output: Int, count: Int) = Drawn(1 + 100 * picture + output).floats(count)

    /** The reference with noise of up to 8 * 2^-power. */
    private fun noisy(picture: Int, output: Int, count: Int, power: Int): FloatArray {
        val noise = Drawn(7001 + 100 * picture + output).floats(count)
        val scale = 2f.pow(-power)
        val values = reference(picture, output, count)
        return FloatArray(count) { values[it] + noise[it] * scale }
    }

    private fun bundle(
        task: Task,
        values: (Int, Int, Int) -> FloatArray = ::reference,
        change: (JsonElement) -> JsonElement = { it },
    ): Bundle {
        val made = TestBundle(manifestOf(task))
        var manifest: JsonElement = made.manifest
        val shapes = Manifest.parse(manifest.toString().encodeToByteArray(), "").outputs
        for (picture in 0 until 2) {
            for ((number, output) in shapes.withIndex()) {
                val stored = values(picture, number, output.shape.reduce(Int::times))
                manifest = made.stored(manifest, "golden/$picture/outputs/${output.name}", littleEndian(stored))
            }
        }
        manifest = manifest.with("parity/onnx/tolerance", Json.parseToJsonElement(tolerance))
        val directory = made.write(File(temporary, task.id))
        File(directory, Manifest.FILE).writeText(change(manifest).toString())
        return Bundle.open(directory)
    }

    /** Returns for the golden inputs, one after the other, what [values] says of picture, output and count. */
    private fun engine(bundle: Bundle, values: (Int, Int, Int) -> FloatArray): Engine {
        var picture = -1
        return FakeEngine {
            picture++
            bundle.outputShapes.entries.withIndex().associate { (number, output) ->
                output.key to Tensor(output.value, values(picture, number, output.value.reduce(Int::times)))
            }
        }
    }

    private fun replay(bundle: Bundle, values: (Int, Int, Int) -> FloatArray): ParityResult =
        GoldenReplay.run(bundle, Format.ONNX, engine(bundle, values), rawDecoder)

    private class Expected(
        val task: Task,
        val power: Int,
        val outputs: List<OutputComparison>,
        val agreement: Agreement,
        val misses: List<String>,
    )

    private val expected = listOf(
        Expected(
            Task.CLASSIFY,
            power = 4,
            listOf(
                OutputComparison(
                    "logits",
                    maxAbs = 0.48807764053344727,
                    meanAbs = 0.3516833782196045,
                    relativeMax = 0.0413001431098198,
                    snrDb = 21.3417577190504,
                    worstSnrDb = 19.562476770576453,
                    cosine = 0.9963662170048222,
                ),
            ),
            Agreement(
                "top-1 agreement",
                1.0,
                mapOf(
                    "top-3 in common" to 1.0,
                ),
            ),
            listOf(
                "logits differs by 4.13e-02 of its range, 1e-04 is allowed",
                "logits has a signal-to-noise ratio of 21.3 dB; 40 dB needed",
            ),
        ),
        Expected(
            Task.CLASSIFY,
            power = 12,
            listOf(
                OutputComparison(
                    "logits",
                    maxAbs = 0.0019066333770751953,
                    meanAbs = 0.0013738075892130535,
                    relativeMax = 0.00016133546139319275,
                    snrDb = 69.50634647602273,
                    worstSnrDb = 67.72718443976085,
                    cosine = 0.9999999440149366,
                ),
            ),
            Agreement(
                "top-1 agreement",
                1.0,
                mapOf(
                    "top-3 in common" to 1.0,
                ),
            ),
            listOf(
                "logits differs by 1.61e-04 of its range, 1e-04 is allowed",
            ),
        ),
        Expected(
            Task.DETECT,
            power = 4,
            listOf(
                OutputComparison(
                    "stride8",
                    maxAbs = 0.49999380111694336,
                    meanAbs = 0.25619668781291693,
                    relativeMax = 0.031263004971547756,
                    snrDb = 24.027940974038717,
                    worstSnrDb = 23.99054860348434,
                    cosine = 0.9980267646924703,
                ),
                OutputComparison(
                    "stride16",
                    maxAbs = 0.4990406036376953,
                    meanAbs = 0.25418768481661874,
                    relativeMax = 0.031243695294411056,
                    snrDb = 24.224359795330273,
                    worstSnrDb = 23.935441783751745,
                    cosine = 0.9981298900346673,
                ),
                OutputComparison(
                    "stride32",
                    maxAbs = 0.49976634979248047,
                    meanAbs = 0.28115686277548474,
                    relativeMax = 0.031362129864471656,
                    snrDb = 23.49742864011192,
                    worstSnrDb = 23.354766787322042,
                    cosine = 0.9978299711888353,
                ),
            ),
            Agreement(
                "box agreement",
                0.56,
                mapOf(
                    "mean IoU of matched boxes" to 0.3625619633839014,
                    "least IoU of matched boxes" to 0.0,
                    "largest difference of their scores" to 0.11660099029541016,
                ),
            ),
            listOf(
                "stride8 differs by 3.13e-02 of its range, 1e-04 is allowed",
                "stride8 has a signal-to-noise ratio of 24.0 dB; 40 dB needed",
                "stride16 differs by 3.12e-02 of its range, 1e-04 is allowed",
                "stride16 has a signal-to-noise ratio of 24.2 dB; 40 dB needed",
                "stride32 differs by 3.14e-02 of its range, 1e-04 is allowed",
                "stride32 has a signal-to-noise ratio of 23.5 dB; 40 dB needed",
                "box agreement is 56.00%; 99.50% needed",
            ),
        ),
        Expected(
            Task.DETECT,
            power = 12,
            listOf(
                OutputComparison(
                    "stride8",
                    maxAbs = 0.001953125,
                    meanAbs = 0.0010007681777703208,
                    relativeMax = 0.0001221226272178778,
                    snrDb = 72.19272850920336,
                    worstSnrDb = 72.15535145955603,
                    cosine = 0.9999999698223835,
                ),
                OutputComparison(
                    "stride16",
                    maxAbs = 0.001949310302734375,
                    meanAbs = 0.0009929185131719958,
                    relativeMax = 0.00012204148658233266,
                    snrDb = 72.38916100035227,
                    worstSnrDb = 72.10026247487518,
                    cosine = 0.9999999712199265,
                ),
                OutputComparison(
                    "stride32",
                    maxAbs = 0.0019521713256835938,
                    meanAbs = 0.0010982622431280713,
                    relativeMax = 0.00012250574825457735,
                    snrDb = 71.66231381901943,
                    worstSnrDb = 71.51958463856015,
                    cosine = 0.9999999663010721,
                ),
            ),
            Agreement(
                "box agreement",
                1.0,
                mapOf(
                    "mean IoU of matched boxes" to 0.9453022206337269,
                    "least IoU of matched boxes" to 0.23436869705526422,
                    "largest difference of their scores" to 0.00021189451217651367,
                ),
            ),
            listOf(
                "stride8 differs by 1.22e-04 of its range, 1e-04 is allowed",
                "stride16 differs by 1.22e-04 of its range, 1e-04 is allowed",
                "stride32 differs by 1.23e-04 of its range, 1e-04 is allowed",
            ),
        ),
        Expected(
            Task.SEGMENT,
            power = 4,
            listOf(
                OutputComparison(
                    "logits",
                    maxAbs = 0.49993133544921875,
                    meanAbs = 0.25316984734187525,
                    relativeMax = 0.031277175393311006,
                    snrDb = 23.96991759212755,
                    worstSnrDb = 23.894561753711855,
                    cosine = 0.9980082373727112,
                ),
            ),
            Agreement(
                "pixel agreement",
                0.958984375,
                mapOf(
                    "mean IoU of the class maps" to 0.9223912943414057,
                ),
            ),
            listOf(
                "logits differs by 3.13e-02 of its range, 1e-04 is allowed",
                "logits has a signal-to-noise ratio of 24.0 dB; 40 dB needed",
                "pixel agreement is 95.90%; 99.50% needed",
            ),
        ),
        Expected(
            Task.SEGMENT,
            power = 12,
            listOf(
                OutputComparison(
                    "logits",
                    maxAbs = 0.0019526481628417969,
                    meanAbs = 0.0009889517292928456,
                    relativeMax = 0.0001221634147332479,
                    snrDb = 72.13468629330875,
                    worstSnrDb = 72.05930891461179,
                    cosine = 0.9999999694310495,
                ),
            ),
            Agreement(
                "pixel agreement",
                1.0,
                mapOf(
                    "mean IoU of the class maps" to 1.0,
                ),
            ),
            listOf(
                "logits differs by 1.22e-04 of its range, 1e-04 is allowed",
            ),
        ),
    )

    @TestFactory
    fun `figures are those of the Python code`(): List<DynamicTest> = expected.map { case ->
        dynamicTest("${case.task.id}, noise of 2^-${case.power}") {
            val found = replay(bundle(case.task)) { picture, output, count ->
                noisy(picture, output, count, case.power)
            }
            assertEquals(2, found.images)
            assertEquals(case.outputs.map { it.name }, found.outputs.map { it.name })
            for ((one, other) in case.outputs.zip(found.outputs)) {
                assertEquals(one.maxAbs, other.maxAbs)
                assertEquals(one.meanAbs, other.meanAbs, 1e-12)
                assertEquals(one.relativeMax, other.relativeMax, 1e-12)
                assertEquals(one.snrDb, other.snrDb, 1e-9)
                assertEquals(one.worstSnrDb, other.worstSnrDb, 1e-9)
                assertEquals(one.cosine, other.cosine, 1e-12)
            }
            assertEquals(case.agreement.name, found.agreement.name)
            assertEquals(case.agreement.share, found.agreement.share, 1e-12)
            assertEquals(case.agreement.figures.keys, found.agreement.figures.keys)
            for ((name, value) in case.agreement.figures) {
                assertEquals(value, found.agreement.figures.getValue(name), 1e-5, name)
            }
            assertEquals(case.misses, found.misses)
            assertEquals(case.misses.isEmpty(), found.passed)
            assertEquals(Tolerance(1e-4, 40.0, 0.995), found.tolerance)
        }
    }

    @TestFactory
    fun `the reference itself passes`(): List<DynamicTest> = Task.entries.map { task ->
        dynamicTest(task.id) {
            val found = replay(bundle(task), ::reference)
            assertTrue(found.passed)
            assertEquals(1.0, found.agreement.share)
            for (output in found.outputs) {
                assertEquals(0.0, output.relativeMax)
                assertEquals(Double.POSITIVE_INFINITY, output.snrDb)
                assertEquals(1.0, output.cosine, 1e-12)
            }
        }
    }

    @TestFactory
    fun `what is not finite, or nothing, passes no tolerance`(): List<DynamicTest> =
        listOf(Float.NaN, Float.POSITIVE_INFINITY, 0f).flatMap { value ->
            Task.entries.map { task ->
                dynamicTest("$value in ${task.id}") {
                    for (bound in listOf("relative_max" to 1e-4, "snr_db" to 3.0)) {
                        val stated = Json.parseToJsonElement("""{"${bound.first}": ${bound.second}}""")
                        val bundle = bundle(task, change = { it.with("parity/onnx/tolerance", stated) })
                        val found = replay(bundle) { _, _, count -> FloatArray(count) { value } }
                        assertTrue(found.misses.isNotEmpty(), bound.first)
                        assertTrue(!found.passed)
                    }
                }
            }
        }

    @Test
    fun `one NaN in one picture is a miss`() {
        val bundle = bundle(Task.SEGMENT)
        val found = replay(bundle) { picture, output, count ->
            reference(picture, output, count).also { if (picture == 1) it[300] = Float.NaN }
        }
        assertTrue(found.outputs.single().relativeMax.isNaN())
        assertEquals(2, found.misses.size)
    }

    @Test
    fun `classes that are nearer than the slack are a tie`() {
        fun agreement(reference: FloatArray, found: FloatArray): Double =
            replay(bundle(Task.CLASSIFY, { _, _, _ -> reference })) { _, _, _ -> found }.agreement.share
        val range = 16f // of which 1e-5 is 0.00016
        assertEquals(1.0, agreement(floatArrayOf(0f, range, range - 0.0001f), floatArrayOf(0f, 1f, 2f)))
        assertEquals(0.0, agreement(floatArrayOf(0f, range, range - 0.0002f), floatArrayOf(0f, 1f, 2f)))
        assertEquals(0.0, agreement(floatArrayOf(0f, range, 1f), floatArrayOf(0f, 1f, 2f)))
        assertEquals(1.0, agreement(floatArrayOf(0f, range, 1f), floatArrayOf(2f, 2f, 2f).also { it[0] = 1f }))
    }

    @Test
    fun `a box a little below the threshold is the same box`() {
        // One box of one cell, whose score is sigmoid(objectness) / 2; the threshold is 0.25.
        fun maps(objectness: Float) = { _: Int, output: Int, count: Int ->
            val values = FloatArray(count) { -20f }
            val plane = count / 24
            if (output == 0) for (channel in 0..5) values[channel * plane] = if (channel == 4) objectness else 0f
            values
        }
        fun agreement(objectness: Float): Double =
            replay(bundle(Task.DETECT, maps(0f)), maps(objectness)).agreement.share
        assertEquals(1.0, agreement(0f))
        assertEquals(1.0, agreement(-0.003f)) // 0.2496
        assertEquals(0.0, agreement(-0.02f)) // 0.2475
        assertEquals(1.0, agreement(0.02f)) // of which the reference's 0.25 is the twin
    }

    @Test
    fun `progress is told, and what it throws ends the replay`() {
        val bundle = bundle(Task.CLASSIFY)
        val told = mutableListOf<Pair<Int, Int>>()
        GoldenReplay.run(bundle, Format.ONNX, engine(bundle, ::reference), rawDecoder) { done, of ->
            told += done to of
        }
        assertEquals(listOf(0 to 2, 1 to 2, 2 to 2), told)
        assertFailsWith<InterruptedException> {
            GoldenReplay.run(bundle, Format.ONNX, engine(bundle, ::reference), rawDecoder) { done, _ ->
                if (done == 1) throw InterruptedException()
            }
        }
    }

    @Test
    fun `the engine stays open`() {
        val bundle = bundle(Task.CLASSIFY)
        val engine = engine(bundle, ::reference) as FakeEngine
        GoldenReplay.run(bundle, Format.ONNX, engine, rawDecoder)
        assertEquals(0, engine.closed.get())
    }

    @Test
    fun `a bundle without tolerance or golden inputs is refused`() {
        val unverified = bundle(Task.CLASSIFY, change = { it.with("parity/onnx", null) })
        assertContains(refusal<BundleException> { replay(unverified, ::reference) }, "exported with --no-verify")
        val bare = bundle(Task.CLASSIFY, change = { it.with("golden", JsonArray(emptyList())) })
        assertContains(refusal<BundleException> { replay(bare, ::reference) }, "has no golden inputs")
    }
}
