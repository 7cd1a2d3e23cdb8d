package xformer.mobile.demo.geometry

import kotlin.test.assertEquals
import kotlin.test.assertNull
import org.junit.jupiter.api.Test
import xformer.mobile.core.Size

class StreamSizesTest {
    @Test
    fun `both streams are of the sensor's shape, the analyzed one small and the shown one large`() {
        val all = sizes("4032x3024 1920x1080 1440x1080 1280x960 1280x720 800x600 640x480 320x240")
        assertEquals(StreamSizes(Size(1440, 1080), Size(640, 480)), StreamSizes.choose(all, all))
    }

    @Test
    fun `where no shape is 4 to 3, the nearest that both have is taken`() {
        val shown = sizes("1920x1080 1280x720")
        val analyzed = sizes("1280x720 640x360 1088x1088")
        assertEquals(StreamSizes(Size(1920, 1080), Size(1280, 720)), StreamSizes.choose(shown, analyzed))
    }

    @Test
    fun `one shape for both comes before the sensor's shape`() {
        val found = StreamSizes.choose(sizes("1920x1080"), sizes("640x480 1280x720"))
        assertEquals(StreamSizes(Size(1920, 1080), Size(1280, 720)), found)
    }

    @Test
    fun `a camera of small pictures gives its largest`() {
        val all = sizes("320x240 160x120")
        assertEquals(StreamSizes(Size(320, 240), Size(320, 240)), StreamSizes.choose(all, all))
    }

    @Test
    fun `a camera that has nothing small enough to be shown still shows something`() {
        val all = sizes("4000x3000")
        assertEquals(StreamSizes(Size(4000, 3000), Size(4000, 3000)), StreamSizes.choose(all, all))
    }

    @Test
    fun `nothing comes of an empty list`() {
        assertNull(StreamSizes.choose(emptyList(), sizes("640x480")))
        assertNull(StreamSizes.choose(sizes("640x480"), emptyList()))
    }

    private fun sizes(text: String): List<Size> =
        text.split(' ').map { it.split('x').let { (width, height) -> Size(width.toInt(), height.toInt()) } }
}
