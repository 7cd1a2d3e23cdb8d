package xformer.mobile

import java.nio.ByteBuffer
import kotlin.math.abs
import kotlin.math.roundToInt
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals
import kotlin.test.assertSame
import kotlin.test.assertTrue
import xformer.mobile.core.ImageException
import xformer.mobile.core.RgbImage
import xformer.mobile.core.UsageException

class YuvToRgbTest {
    @Test
    fun `every triple of bytes is within 1 of the formula in doubles`() {
        // For each U a frame: a row of two by two pixels for each Y, in it one for each V.
        val y = ByteArray(512 * 512) { (it / 1024).toByte() }
        val v = ByteArray(256 * 256) { it.toByte() }
        var largest = 0
        for (cb in 0..255) {
            val found = YuvToRgb.convert(frame(512, 512, y, ByteArray(256 * 256) { cb.toByte() }, v)).bytes
            for (luma in 0..255) {
                for (cr in 0..255) {
                    val place = 3 * (2 * luma * 512 + 2 * cr)
                    val red = luma + 1.402 * (cr - 128)
                    val green = luma - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
                    val blue = luma + 1.772 * (cb - 128)
                    largest = maxOf(largest, off(red, found[place]), off(green, found[place + 1]))
                    largest = maxOf(largest, off(blue, found[place + 2]))
                }
            }
        }
        assertTrue(largest <= 1, "differs by $largest")
    }

    @Test
    fun `grey, the primaries and the clipped ends are these bytes`() {
        val rows = listOf(
            listOf(0, 128, 128) to listOf(0, 0, 0),
            listOf(255, 128, 128) to listOf(255, 255, 255),
            listOf(100, 128, 128) to listOf(100, 100, 100),
            listOf(76, 85, 255) to listOf(254, 0, 0),
            listOf(150, 44, 21) to listOf(0, 255, 1),
            listOf(29, 255, 107) to listOf(0, 0, 254),
            listOf(0, 0, 0) to listOf(0, 135, 0),
            listOf(255, 255, 255) to listOf(255, 121, 255),
        )
        for ((yuv, rgb) in rows) {
            val (y, u, v) = yuv
            val found = YuvToRgb.convert(frame(1, 1, bytes(y), bytes(u), bytes(v)))
            assertEquals(rgb, found.bytes.map { it.toInt() and 0xFF }, "of $yuv")
        }
    }

    // Six pixels, each of another brightness and without color, in reading order.
    private val six = frame(3, 2, bytes(1, 2, 3, 4, 5, 6), bytes(128, 128), bytes(128, 128))

    @Test
    fun `a frame is turned clockwise, then mirrored`() {
        val expected = mapOf(
            (0 to false) to listOf(listOf(1, 2, 3), listOf(4, 5, 6)),
            (90 to false) to listOf(listOf(4, 1), listOf(5, 2), listOf(6, 3)),
            (180 to false) to listOf(listOf(6, 5, 4), listOf(3, 2, 1)),
            (270 to false) to listOf(listOf(3, 6), listOf(2, 5), listOf(1, 4)),
            (0 to true) to listOf(listOf(3, 2, 1), listOf(6, 5, 4)),
            (90 to true) to listOf(listOf(1, 4), listOf(2, 5), listOf(3, 6)),
            (180 to true) to listOf(listOf(4, 5, 6), listOf(1, 2, 3)),
            (270 to true) to listOf(listOf(6, 3), listOf(5, 2), listOf(4, 1)),
        )
        for ((how, rows) in expected) {
            val (degrees, mirrored) = how
            val found = greys(YuvToRgb.convert(six, degrees, mirrored))
            assertEquals(rows, found, "turned by $degrees, mirrored: $mirrored")
        }
    }

    @Test
    fun `a crop is cut out before it is turned`() {
        assertEquals(listOf(listOf(2, 3), listOf(5, 6)), greys(YuvToRgb.convert(six, crop = Crop(1, 0, 2, 2))))
        assertEquals(listOf(listOf(5)), greys(YuvToRgb.convert(six, 90, crop = Crop(1, 1, 1, 1))))
        assertEquals(listOf(listOf(5, 2), listOf(6, 3)), greys(YuvToRgb.convert(six, 90, crop = Crop(1, 0, 2, 2))))
    }

    @Test
    fun `each two by two pixels have the color of their sample, also from an odd corner on`() {
        // 4x4 grey, four samples of V: the red channel says which one was used.
        val frame = frame(4, 4, ByteArray(16) { 100 }, ByteArray(4) { 128.toByte() }, bytes(128, 138, 148, 158))
        val red = { image: RgbImage -> image.bytes.filterIndexed { i, _ -> i % 3 == 0 }.map { it.toInt() and 0xFF } }
        val (a, b, c, d) = listOf(100, 114, 128, 142)
        assertEquals(listOf(a, a, b, b, a, a, b, b, c, c, d, d, c, c, d, d), red(YuvToRgb.convert(frame)))
        assertEquals(listOf(a, b, b, c, d, d), red(YuvToRgb.convert(frame, crop = Crop(1, 1, 3, 2))))
    }

    @Test
    fun `an odd frame has a sample more`() {
        val frame = frame(3, 3, ByteArray(9) { 100 }, ByteArray(4) { 128.toByte() }, bytes(128, 138, 148, 158))
        val reds = YuvToRgb.convert(frame).bytes.filterIndexed { i, _ -> i % 3 == 0 }.map { it.toInt() and 0xFF }
        assertEquals(listOf(100, 100, 114, 100, 100, 114, 128, 128, 142), reds)
    }

    @Test
    fun `one picture is the same bytes in every layout`() {
        val random = Random(7)
        repeat(300) {
            val width = random.nextInt(1, 20)
            val height = random.nextInt(1, 20)
            val y = random.nextBytes(width * height)
            val u = random.nextBytes((width + 1) / 2 * ((height + 1) / 2))
            val v = random.nextBytes(u.size)
            val degrees = 90 * random.nextInt(4)
            val mirrored = random.nextBoolean()
            val crop = drawnCrop(random, width, height)
            val plain = YuvToRgb.convert(frame(width, height, y, u, v), degrees, mirrored, crop)
            assertContentEquals(simply(width, y, u, v, degrees, mirrored, crop), plain.bytes)
            repeat(4) {
                val frame = drawnLayout(random, width, height, y, u, v)
                val found = YuvToRgb.convert(frame, degrees, mirrored, crop)
                assertEquals(plain.width to plain.height, found.width to found.height)
                assertContentEquals(plain.bytes, found.bytes)
            }
        }
    }

    @Test
    fun `a buffer that fits is used again`() {
        val reuse = ByteArray(18)
        assertSame(reuse, YuvToRgb.convert(six, 90, reuse = reuse).bytes)
        assertContentEquals(YuvToRgb.convert(six, 90).bytes, reuse)
        val larger = ByteArray(19) { 7 }
        assertContentEquals(YuvToRgb.convert(six, reuse = larger).bytes, YuvToRgb.convert(six).bytes)
        assertTrue(larger.all { it == 7.toByte() })
    }

    @Test
    fun `planes that can't be are refused`() {
        val y = YuvPlane(ByteBuffer.allocate(8), 4, 1)
        val c = YuvPlane(ByteBuffer.allocate(2), 2, 1)
        val messages = listOf(
            { YuvFrame(0, 2, y, c, c) },
            { YuvFrame(5, 2, y, c, c) },
            { YuvFrame(4, 3, y, c, c) },
            { YuvFrame(4, 2, YuvPlane(ByteBuffer.allocate(8), 4, 0), c, c) },
            { YuvFrame(4, 2, y, YuvPlane(ByteBuffer.allocate(2), -2, 1), c) },
            { YuvFrame(4, 2, y, c, YuvPlane(ByteBuffer.allocate(2), 3, 2)) },
            { YuvFrame(1 shl 30, 1 shl 30, YuvPlane(ByteBuffer.allocate(8), 1 shl 30, 1), c, c) },
        ).map { make -> assertFailsWith<ImageException> { make() }.message.orEmpty() }
        assertEquals("a frame of 0x2 has no pixels", messages[0])
        assertEquals(
            "the Y plane has the pixel stride 1 and the row stride 4; 5 samples a row need at least 1 and 5",
            messages[1],
        )
        assertEquals("the Y plane has 8 bytes; 4x3 need 12", messages[2])
        assertEquals("the V plane has 2 bytes; 2x1 need 3", messages[5])
        assertTrue(messages.none { '\n' in it })
    }

    @Test
    fun `a rotation or a crop that can't be is refused`() {
        for (degrees in listOf(-90, 1, 45, 360, 450)) {
            val error = assertFailsWith<UsageException> { YuvToRgb.convert(six, degrees) }
            assertEquals("unknown rotation $degrees; valid: 0, 90, 180, 270", error.message)
        }
        val outside = listOf(
            Crop(-1, 0, 2, 2),
            Crop(0, 0, 4, 2),
            Crop(0, 1, 3, 2),
            Crop(0, 0, 0, 2),
            Crop(Int.MAX_VALUE, 0, Int.MAX_VALUE, 1),
        )
        for (crop in outside) {
            assertFailsWith<ImageException> { YuvToRgb.convert(six, crop = crop) }
        }
    }

    @Test
    fun `the reference of these tests sees a wrong turn`() {
        val y = Random(1).nextBytes(6)
        val grey = ByteArray(2) { 128.toByte() }
        val whole = Crop(0, 0, 3, 2)
        assertNotEquals(
            simply(3, y, grey, grey, 90, false, whole).toList(),
            simply(3, y, grey, grey, 270, false, whole).toList(),
        )
    }

    private fun bytes(vararg values: Int) = ByteArray(values.size) { values[it].toByte() }

    /** Without any padding. */
    private fun frame(width: Int, height: Int, y: ByteArray, u: ByteArray, v: ByteArray) = YuvFrame(
        width,
        height,
        YuvPlane(ByteBuffer.wrap(y), width, 1),
        YuvPlane(ByteBuffer.wrap(u), (width + 1) / 2, 1),
        YuvPlane(ByteBuffer.wrap(v), (width + 1) / 2, 1),
    )

    private fun greys(image: RgbImage): List<List<Int>> {
        val pixels = image.bytes.toList().chunked(3)
        assertTrue(pixels.all { it.distinct().size == 1 })
        return pixels.map { it.first().toInt() and 0xFF }.chunked(image.width)
    }

    /** How far a byte is from a real number that is rounded and clipped. */
    private fun off(expected: Double, found: Byte): Int =
        abs(expected.coerceIn(0.0, 255.0).roundToInt() - (found.toInt() and 0xFF))

    private fun inIntegers(y: Int, u: Int, v: Int): List<Int> = listOf(
        65_536 * y + 91_881 * (v - 128) + 32_768,
        65_536 * y - 22_554 * (u - 128) - 46_802 * (v - 128) + 32_768,
        65_536 * y + 116_130 * (u - 128) + 32_768,
    ).map { Math.floorDiv(it, 65_536).coerceIn(0, 255) }

    /** The same picture, pixel by pixel and turn by turn. */
    private fun simply(
        width: Int,
        y: ByteArray,
        u: ByteArray,
        v: ByteArray,
        degrees: Int,
        mirrored: Boolean,
        crop: Crop,
    ): ByteArray {
        var rows = List(crop.height) { row ->
            List(crop.width) { column ->
                val px = crop.x + column
                val py = crop.y + row
                val pair = py / 2 * ((width + 1) / 2) + px / 2
                inIntegers(y[py * width + px].toInt() and 0xFF, u[pair].toInt() and 0xFF, v[pair].toInt() and 0xFF)
            }
        }
        repeat(degrees / 90) {
            val before = rows
            rows = List(before[0].size) { row -> List(before.size) { column -> before[before.size - 1 - column][row] } }
        }
        if (mirrored) rows = rows.map { it.reversed() }
        return rows.flatten().flatten().map { it.toByte() }.toByteArray()
    }

    private fun drawnCrop(random: Random, width: Int, height: Int): Crop {
        val x = random.nextInt(width)
        val y = random.nextInt(height)
        return Crop(x, y, random.nextInt(1, width - x + 1), random.nextInt(1, height - y + 1))
    }

    private fun drawnLayout(
        random: Random,
        width: Int,
        height: Int,
        y: ByteArray,
        u: ByteArray,
        v: ByteArray,
    ): YuvFrame {
        val columns = (width + 1) / 2
        val rows = (height + 1) / 2
        val luma = laid(random, y, width, height, 1 + random.nextInt(2))
        if (random.nextBoolean()) {
            return YuvFrame(
                width,
                height,
                luma,
                laid(random, u, columns, rows, 1 + random.nextInt(3)),
                laid(random, v, columns, rows, 1 + random.nextInt(3)),
            )
        }
        // Interleaved, as most phones have it: two planes that look into one buffer, a byte apart.
        val rowStride = 2 * columns + random.nextInt(5)
        val both = random.nextBytes((rows - 1) * rowStride + 2 * columns)
        val redFirst = random.nextBoolean()
        for (i in u.indices) {
            val place = i / columns * rowStride + 2 * (i % columns)
            both[place] = (if (redFirst) v else u)[i]
            both[place + 1] = (if (redFirst) u else v)[i]
        }
        val first = slice(both, 0, both.size - 1)
        val second = slice(both, 1, both.size - 1)
        val (us, vs) = if (redFirst) second to first else first to second
        return YuvFrame(width, height, luma, YuvPlane(us, rowStride, 2), YuvPlane(vs, rowStride, 2))
    }

    private fun slice(bytes: ByteArray, from: Int, count: Int): ByteBuffer = ByteBuffer.wrap(bytes, from, count).slice()

    /** With noise between the samples; the last row ends with its last sample, as on a device, or is padded too. */
    private fun laid(random: Random, samples: ByteArray, columns: Int, rows: Int, pixelStride: Int): YuvPlane {
        val rowStride = (columns - 1) * pixelStride + 1 + random.nextInt(6)
        val tail = if (random.nextBoolean()) rowStride else (columns - 1) * pixelStride + 1
        val content = random.nextBytes((rows - 1) * rowStride + tail)
        for (i in samples.indices) content[i / columns * rowStride + i % columns * pixelStride] = samples[i]
        val isDirect = random.nextBoolean()
        val buffer = if (isDirect) ByteBuffer.allocateDirect(content.size) else ByteBuffer.allocate(content.size)
        buffer.put(content)
        buffer.position(random.nextInt(content.size + 1)) // a camera's consumer may have read some of it
        return YuvPlane(buffer, rowStride, pixelStride)
    }
}
