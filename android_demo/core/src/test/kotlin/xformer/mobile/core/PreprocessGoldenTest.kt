package xformer.mobile.core

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonObject
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals

/** The bytes that the Python code makes, bit for bit. */
class PreprocessGoldenTest {
    private val golden = Golden("preprocess")

    @Test
    fun `the fixtures are those that Python and Swift read`() {
        val sums = Json.decodeFromString<Map<String, String>>(Golden(".").bytes("sums.json").decodeToString())
        assertEquals(sums, sums.mapValues { (folder, _) -> treeSha256(Golden(folder).directory) })
    }

    @TestFactory
    fun `picture to bytes`(): List<DynamicTest> = golden.document("cases.json").tests({ it.text("name") }) { case ->
        val source = case.size("source")
        val image = RgbImage(source.width, source.height, golden.bytes(case.text("pixels")))
        val made = Preprocess.preprocess(image, case.target(), case.rule())
        assertEquals(case.expectedFit(), made.fit)
        assertContentEquals(golden.bytes(case.text("expected")), made.image.bytes)
    }

    @TestFactory
    fun `sizes and offsets`(): List<DynamicTest> = golden.document("fit.json").tests(
        { "${it["source"]} to ${it["target"]} by ${it.text("rule")}" },
    ) { case ->
        assertEquals(case.expectedFit(), Fit.of(case.size("source"), case.target(), case.rule()))
    }

    @TestFactory
    fun `stored to upright by EXIF orientation`(): List<DynamicTest> {
        val document = golden.document("orientation.json")
        val stored = picture(document.getValue("stored").jsonObject)
        return document.tests({ "orientation ${it.int("orientation")}" }) { case ->
            val expected = picture(case)
            val upright = Preprocess.upright(stored, case.int("orientation"))
            assertEquals(Size(expected.width, expected.height), Size(upright.width, upright.height))
            assertContentEquals(expected.bytes, upright.bytes)
        }
    }

    private fun JsonObject.expectedFit(): Fit {
        val target = target()
        val (x, y) = getValue("offset").ints()
        return Fit(size("source"), size("resized"), Point(x, y), Size(target.width, target.height))
    }

    private fun picture(case: JsonObject): RgbImage {
        val (width, height) = case.size("size")
        return RgbImage(width, height, case.getValue("rgb").ints().map(Int::toByte).toByteArray())
    }
}
