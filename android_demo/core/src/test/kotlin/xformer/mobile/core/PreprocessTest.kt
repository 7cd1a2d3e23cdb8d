package xformer.mobile.core

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import java.util.concurrent.ConcurrentLinkedQueue
import kotlin.math.abs
import kotlin.random.Random
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertSame
import kotlin.test.assertTrue

class PreprocessTest {
    private val square = ImageSize(64, 64)

    // ---- drawn pictures -------------------------------------------------------------------------------------

    @Test
    fun `drawn pictures come out as by the page's formulas`() {
        forSeeds(50) { random ->
            val source = random.picture(side(random), side(random))
            val target = ImageSize(64 * random.nextInt(1, 4), 64 * random.nextInt(1, 4))
            val rule = ResizeRule.entries.random(random)
            val made = Preprocess.preprocess(source, target, rule)
            val what = "${source.width}x${source.height} to $target by $rule"
            assertContentEquals(expected(source, made.fit, target), made.image.bytes, what)
        }
    }

    /** Sides of which many are one, or one more or less than a target's. */
    private fun side(random: Random): Int = when (random.nextInt(4)) {
        0 -> random.nextInt(1, 4)
        1 -> 64 * random.nextInt(1, 4) + random.nextInt(-1, 2)
        2 -> random.nextInt(1, 80)
        else -> random.nextInt(1, 250)
    }

    /** Section 3 of docs/preprocessing.md word by word: the whole picture, one axis after the other, then the crop. */
    private fun expected(source: RgbImage, fit: Fit, target: ImageSize): ByteArray {
        val narrow = resized(source.bytes, source.width, source.height, fit.resized.width)
        // The height likewise: rows and columns exchanged before and after.
        val turned = resized(
            transposed(narrow, fit.resized.width, source.height),
            source.height,
            fit.resized.width,
            fit.resized.height,
        )
        val whole = transposed(turned, fit.resized.height, fit.resized.width)
        val canvas = ByteArray(3 * target.width * target.height) { 114 }
        for (at in 0 until target.width * target.height) {
            val x = at % target.width - fit.offset.x
            val y = at / target.width - fit.offset.y
            if (x !in 0 until fit.resized.width || y !in 0 until fit.resized.height) continue
            repeat(3) { c -> canvas[3 * at + c] = whole[3 * (y * fit.resized.width + x) + c] }
        }
        return canvas
    }

    private fun resized(bytes: ByteArray, n: Int, height: Int, m: Int): ByteArray {
        if (n == m) return bytes
        val scale = n.toDouble() / m
        val reach = maxOf(scale, 1.0)
        val taps = List(m) { i ->
            val centre = (i + 0.5) * scale
            val first = maxOf((centre - reach + 0.5).toInt(), 0)
            val last = minOf((centre + reach + 0.5).toInt(), n)
            val shares = (first until last).map { j -> maxOf(0.0, 1.0 - abs((j - centre + 0.5) * (1.0 / reach))) }
            val total = shares.fold(0.0) { sum, share -> sum + share }
            first to shares.map { (0.5 + it / total * 4194304).toInt() }.toIntArray()
        }
        return ByteArray(3 * m * height) { at ->
            val (first, weights) = taps[at / 3 % m]
            val from = 3 * (at / 3 / m * n + first) + at % 3
            var sum = 1 shl 21
            for (tap in weights.indices) sum += weights[tap] * (bytes[from + 3 * tap].toInt() and 0xff)
            (sum shr 22).coerceIn(0, 255).toByte()
        }
    }

    private fun transposed(bytes: ByteArray, width: Int, height: Int): ByteArray = ByteArray(bytes.size) { at ->
        val x = at / 3 / height
        val y = at / 3 % height
        bytes[3 * (y * width + x) + at % 3]
    }

    @Test
    fun `a picture of one color stays so`() {
        forSeeds(40) { random ->
            val color = random.nextBytes(3)
            val width = random.nextInt(1, 300)
            val height = random.nextInt(1, 300)
            val source = RgbImage(width, height, ByteArray(3 * width * height) { color[it % 3] })
            for (rule in listOf(ResizeRule.RESIZE, ResizeRule.RESIZE_SHORTER_CENTER_CROP)) {
                val made = Preprocess.preprocess(source, square, rule)
                // The weights of many small taps need not add up to one exactly.
                val largest = made.image.bytes.indices.maxOf { abs(made.image.bytes[it] - color[it % 3]) }
                assertTrue(largest <= 1 || largest == 255, "$width x $height by $rule: off by $largest")
            }
        }
    }

    @Test
    fun `a picture of the input's size is not changed`() {
        val source = Random(1).picture(128, 64)
        for (rule in listOf(ResizeRule.RESIZE, ResizeRule.LETTERBOX)) {
            val made = Preprocess.preprocess(source, ImageSize(64, 128), rule)
            assertContentEquals(source.bytes, made.image.bytes)
        }
    }

    @Test
    fun `the fit is inside or covers the input`() {
        forSeeds(300) { random ->
            val source = Size(random.nextInt(1, 5000), random.nextInt(1, 5000))
            val target = ImageSize(64 * random.nextInt(1, 65), 64 * random.nextInt(1, 65))
            val inside = Fit.of(source, target, ResizeRule.LETTERBOX)
            assertTrue(inside.resized.width == target.width || inside.resized.height == target.height)
            assertTrue(inside.offset.x >= 0 && inside.offset.x + inside.resized.width <= target.width)
            assertTrue(inside.offset.y >= 0 && inside.offset.y + inside.resized.height <= target.height)
            val covering = Fit.of(source, target, ResizeRule.RESIZE_SHORTER_CENTER_CROP)
            assertTrue(covering.offset.x <= 0 && covering.offset.x + covering.resized.width >= target.width)
            assertTrue(covering.offset.y <= 0 && covering.offset.y + covering.resized.height >= target.height)
        }
    }

    // ---- row sources ----------------------------------------------------------------------------------------

    private class Rows(private val image: RgbImage) : RowSource by image {
        val asked = mutableListOf<Int>()

        override fun row(y: Int, into: ByteArray) {
            asked += y
            into.fill(99) // nobody relies on what was there
            image.row(y, into)
        }
    }

    @Test
    fun `rows are asked for once, from the top, and not where they are cropped`() {
        forSeeds(40) { random ->
            val image = random.picture(random.nextInt(1, 200), random.nextInt(1, 200))
            for (rule in ResizeRule.entries) {
                val rows = Rows(image)
                val made = Preprocess.preprocess(rows, square, rule)
                assertContentEquals(Preprocess.preprocess(image, square, rule).image.bytes, made.image.bytes)
                assertEquals(rows.asked.sorted().distinct(), rows.asked)
            }
        }
        val tall = Rows(Random(1).picture(64, 6400))
        Preprocess.preprocess(tall, square, ResizeRule.RESIZE_SHORTER_CENTER_CROP)
        assertTrue(tall.asked.size < 80, "asked for ${tall.asked.size} rows of a picture of which 64 are shown")
    }

    @Test
    fun `a picture larger than the heap is fitted row by row`() {
        val wide = object : RowSource {
            override val width = 12_000
            override val height = 9_000

            override fun row(y: Int, into: ByteArray) = into.fill((y * 255 / 9_000).toByte())
        }
        val made = Preprocess.preprocess(wide, square, ResizeRule.RESIZE)
        val column = (0 until 64).map { made.image.bytes[3 * 64 * it].toInt() and 0xff }
        assertEquals(column.sorted(), column)
        assertTrue(column.first() < 3 && column.last() > 250)
    }

    @Test
    fun `many threads get the same bytes`() {
        val images = List(8) { Random(it).picture(50 + 37 * it, 40 + 23 * it) }
        fun all() = images.flatMap { image ->
            ResizeRule.entries.map { Preprocess.preprocess(image, square, it).image.bytes.toList() }
        }
        val expected = all()
        val found = ConcurrentLinkedQueue<Any>()
        val threads = List(6) { Thread { repeat(5) { found.add(all()) } }.apply { start() } }
        threads.forEach(Thread::join)
        assertEquals(30, found.size)
        assertTrue(found.all { it == expected })
    }

    // ---- what is refused ------------------------------------------------------------------------------------

    private class Blank(override val width: Int, override val height: Int) : RowSource {
        override fun row(y: Int, into: ByteArray) = error("no row may be asked for")
    }

    private class Refused(
        val width: Int,
        val height: Int,
        val target: ImageSize,
        val rule: ResizeRule,
        val problem: String,
    )

    private val wide = ImageSize(64, 4096)

    private val refused = mapOf(
        "no width" to Refused(0, 5, square, ResizeRule.RESIZE, "has no pixels"),
        "negative height" to Refused(5, -1, square, ResizeRule.RESIZE, "has no pixels"),
        "more pixels than 178,956,970" to Refused(16_385, 10_923, square, ResizeRule.RESIZE, "more than 178956970"),
        "a side longer than 2^20" to Refused((1 shl 20) + 1, 1, square, ResizeRule.RESIZE, "too elongated"),
        "a height longer than 2^20" to Refused(1, (1 shl 20) + 1, square, ResizeRule.LETTERBOX, "too elongated"),
        "more than 2^26 pixels when it is scaled" to
            Refused(1, 20_000, square, ResizeRule.RESIZE_SHORTER_CENTER_CROP, "too elongated"),
        "more pixels when it is narrowed" to Refused(1, 100_000, wide, ResizeRule.RESIZE, "too elongated"),
        "a size beyond 32 bits" to
            Refused(1, 1 shl 20, wide, ResizeRule.RESIZE_SHORTER_CENTER_CROP, "too elongated"),
    )

    @TestFactory
    fun `a picture that can't be scaled is refused`(): List<DynamicTest> = refused.map { (name, case) ->
        dynamicTest(name) {
            val message = refusal<ImageException> {
                Preprocess.preprocess(Blank(case.width, case.height), case.target, case.rule)
            }
            assertContains(message, case.problem)
        }
    }

    @Test
    fun `pictures at the limits are taken`() {
        val white = RgbImage(1 shl 20, 1, ByteArray(3 shl 20) { -1 })
        val line = Preprocess.preprocess(white, square, ResizeRule.RESIZE)
        assertTrue(line.image.bytes.all { it == (-1).toByte() })
        val column = RgbImage(1, 1 shl 20, ByteArray(3 shl 20) { 7 })
        val letterbox = Preprocess.preprocess(column, square, ResizeRule.LETTERBOX)
        assertEquals(Size(1, 64), letterbox.fit.resized)
        assertEquals(listOf<Byte>(114, 114, 114, 7, 7, 7, 114), letterbox.image.bytes.slice(3 * 30 until 3 * 30 + 7))
    }

    @Test
    fun `bytes that are no picture are refused`() {
        assertContains(refusal<ImageException> { RgbImage(2, 2, ByteArray(11)) }, "got 11 bytes for a picture of 2x2")
        assertContains(refusal<ImageException> { RgbImage(2, 2, ByteArray(13)) }, "RGB takes 12")
        assertFailsWith<ImageException> { RgbImage(0, 2, ByteArray(0)) }
        assertFailsWith<ImageException> { RgbImage(-1, -1, ByteArray(3)) }
        assertFailsWith<ImageException> { RgbImage(1 shl 16, 1 shl 16, ByteArray(0)) } // 2^32 pixels are 0 in 32 bits
    }

    @TestFactory
    fun `image sizes that no model takes are refused`(): List<DynamicTest> =
        listOf(0 to 64, 64 to 63, 65 to 64, 4160 to 64, -64 to 64).map { (height, width) ->
            dynamicTest("${height}x$width") {
                val message = refusal<UsageException> { ImageSize(height, width) }
                assertContains(message, "${height}x$width is not valid: both sides must be multiples of 64")
            }
        }

    // ---- EXIF -----------------------------------------------------------------------------------------------

    @TestFactory
    fun `an orientation and the one that undoes it give the picture back`(): List<DynamicTest> {
        val undoes = mapOf(1 to 1, 2 to 2, 3 to 3, 4 to 4, 5 to 5, 6 to 8, 7 to 7, 8 to 6)
        return undoes.map { (orientation, back) ->
            dynamicTest("$orientation and $back") {
                forSeeds(10) { random ->
                    val image = random.picture(random.nextInt(1, 9), random.nextInt(1, 9))
                    val upright = Preprocess.upright(image, orientation)
                    val again = Preprocess.upright(upright, back)
                    assertEquals(Size(image.width, image.height), Size(again.width, again.height))
                    assertContentEquals(image.bytes, again.bytes)
                }
            }
        }
    }

    @Test
    fun `an orientation that changes nothing copies nothing`() {
        val image = Random(1).picture(3, 2)
        for (orientation in listOf(-1, 0, 1, 9, Int.MAX_VALUE)) {
            assertSame(image, Preprocess.upright(image, orientation))
        }
    }
}
