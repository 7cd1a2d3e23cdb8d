package xformer.mobile

import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertSame
import kotlin.test.assertTrue
import xformer.mobile.core.ImageException
import xformer.mobile.core.Preprocess
import xformer.mobile.core.RgbImage
import xformer.mobile.core.RowSource
import xformer.mobile.core.UsageException

class RowsTest {
    @Test
    fun `rows are those of the upright picture, for every orientation and size of stripe`() {
        // The largest sizes take several stripes, of rows and of columns.
        for ((width, height) in listOf(1 to 1, 3 to 2, 2 to 5, 1 to 300, 300 to 1, 400 to 700, 700 to 400)) {
            val argb = Random(width).let { random -> IntArray(width * height) { random.nextInt() } }
            val stored = rgbOf(argb, width, height)
            for (orientation in -1..9) {
                val rows = OrientedRows(width, height, orientation, false, pixelsOf(argb, width))
                val expected = Preprocess.upright(stored, orientation)
                assertEquals(expected.width to expected.height, rows.width to rows.height)
                assertContentEquals(expected.bytes, rows.toRgb().bytes, "${width}x$height, orientation $orientation")
            }
        }
    }

    @Test
    fun `rows may be left out, and asked for in any order`() {
        val argb = Random(3).let { random -> IntArray(500 * 400) { random.nextInt() } }
        for (orientation in 1..8) {
            val expected = Preprocess.upright(rgbOf(argb, 500, 400), orientation)
            val rows = OrientedRows(500, 400, orientation, false, pixelsOf(argb, 500))
            val row = ByteArray(3 * rows.width)
            for (y in listOf(0, 7, 200, 399, 13, 12, 131, 130, 129, 398)) {
                rows.row(y, row)
                assertContentEquals(
                    expected.bytes.copyOfRange(3 * y * rows.width, 3 * (y + 1) * rows.width),
                    row,
                    "row $y, orientation $orientation",
                )
            }
            assertFailsWith<UsageException> { rows.row(rows.height, row) }
            assertFailsWith<UsageException> { rows.row(-1, row) }
        }
    }

    @Test
    fun `each pixel is read once when rows are read from the top down`() {
        for (orientation in listOf(1, 3, 6, 8)) {
            var read = 0L
            val rows = OrientedRows(1000, 700, orientation, false) { _, _, x, y, width, height ->
                assertTrue(x >= 0 && y >= 0 && x + width <= 1000 && y + height <= 700)
                assertTrue(width * height <= 1 shl 16)
                read += width * height
            }
            rows.toRgb()
            assertEquals(700_000, read)
        }
    }

    @Test
    fun `of an alpha bitmap the values are grey`() {
        val rows = OrientedRows(2, 1, 1, true) { into, _, _, _, _, _ ->
            into[0] = 0x7F123456
            into[1] = 0xFF000000.toInt()
        }
        assertContentEquals(byteArrayOf(127, 127, 127, -1, -1, -1), rows.toRgb().bytes)
    }

    @Test
    fun `a picture that is bytes already is not copied, one that is too large is refused`() {
        val image = RgbImage(1, 1, ByteArray(3))
        assertSame(image, image.toRgb())
        val huge = object : RowSource {
            override val width = 1 shl 15
            override val height = 1 shl 15

            override fun row(y: Int, into: ByteArray) = Unit
        }
        assertFailsWith<ImageException> { huge.toRgb() }
    }

    @Test
    fun `shrinking averages squares and what is left at the edges`() {
        val image = RgbImage(3, 3, ByteArray(27) { (it / 3 * 10).toByte() })
        val grey = image.shrunk(2).bytes.toList().chunked(3).map { it.distinct().single().toInt() }
        assertEquals(listOf((0 + 10 + 30 + 40 + 2) / 4, (20 + 50 + 1) / 2, (60 + 70 + 1) / 2, 80), grey)
        assertContentEquals(image.bytes, image.shrunk(1).bytes)
        val one = RgbImage(5000, 2, ByteArray(30_000) { -1 }).shrunk(5000)
        assertEquals(listOf(1, 1, 255), listOf(one.width, one.height, one.bytes[0].toInt() and 0xFF))
    }

    @Test
    fun `a row as opaque pixels`() {
        val row = IntArray(2)
        RgbImage(2, 2, ByteArray(12) { it.toByte() }).argbRow(1, row)
        assertContentEquals(intArrayOf(0xFF060708.toInt(), 0xFF090A0B.toInt()), row)
    }

    @Test
    fun `a size is refused or subsampled as its pixels ask for`() {
        assertEquals(1, sampleSize(4000, 3000, 12_000_000, subsample = false))
        assertEquals(2, sampleSize(4000, 3000, 11_999_999, subsample = true))
        assertEquals(4, sampleSize(12_000, 9_000, 7_000_000, subsample = true))
        assertEquals(2, sampleSize(16_000, 12_000, Pictures.MAX_PIXELS, subsample = true))
        assertEquals(1 shl 30, sampleSize(Int.MAX_VALUE, Int.MAX_VALUE, 1, subsample = true))
        val random = Random(5)
        repeat(1000) {
            val (width, height, most) = List(3) { random.nextInt(1, 60_000) }
            val factor = sampleSize(width, height, most, subsample = true).toLong()
            fun pixels(by: Long) = ((width - 1) / by + 1) * ((height - 1) / by + 1)
            assertTrue(pixels(factor) <= most)
            assertTrue(factor == 1L || pixels(factor / 2) > most)
        }
        val large = assertFailsWith<ImageException> { sampleSize(16_000, 12_000, Pictures.MAX_PIXELS, false) }
        assertEquals("it has 16000x12000 pixels, more than 178956970; scale it down, or subsample it", large.message)
        assertFailsWith<ImageException> { sampleSize(-1, -1, 100, true) }
        assertFailsWith<UsageException> { sampleSize(1, 1, 0, true) }
        assertFailsWith<UsageException> { sampleSize(1, 1, Pictures.MAX_PIXELS + 1, true) }
    }

    private fun pixelsOf(argb: IntArray, width: Int) = Pixels { into, stride, x, y, columns, rows ->
        for (row in 0 until rows) {
            argb.copyInto(into, row * stride, (y + row) * width + x, (y + row) * width + x + columns)
        }
    }

    private fun rgbOf(argb: IntArray, width: Int, height: Int): RgbImage {
        val bytes = ByteArray(3 * argb.size)
        for (i in argb.indices) {
            bytes[3 * i] = (argb[i] shr 16).toByte()
            bytes[3 * i + 1] = (argb[i] shr 8).toByte()
            bytes[3 * i + 2] = argb[i].toByte()
        }
        return RgbImage(width, height, bytes)
    }
}
