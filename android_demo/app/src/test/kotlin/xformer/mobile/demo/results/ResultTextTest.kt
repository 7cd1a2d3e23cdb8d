package xformer.mobile.demo.results

import kotlin.test.assertEquals
import kotlin.test.assertNull
import org.junit.jupiter.api.Test
import xformer.mobile.core.Box
import xformer.mobile.core.ClassMap
import xformer.mobile.core.Classification
import xformer.mobile.core.Classifications
import xformer.mobile.core.Detection
import xformer.mobile.core.Detections
import xformer.mobile.demo.ui.XmlWords

class ResultTextTest {
    private val text = ResultText(XmlWords)

    @Test
    fun `of classes the most probable is said`() {
        val found = Classifications(listOf(Classification(2, "star", 0.914), Classification(0, "heart", 0.05)))
        assertEquals("Probably star, 91 %", text.of(found))
    }

    @Test
    fun `of objects their number is said and how many there are of each class`() {
        assertEquals("3 objects: star (2), fish", text.of(objects("star", "fish", "star")))
        assertEquals("1 object: mug", text.of(objects("mug")))
        assertEquals("No objects found", text.of(objects()))
    }

    @Test
    fun `of a class map the largest classes are said`() {
        val classes = List(1000) { (if (it < 550) 0 else if (it < 960) 1 else 2).toShort() }.toShortArray()
        val map = ClassMap(100, 10, classes, listOf("background", "car", "key"))
        assertEquals("background 55 %, car 41 %", text.of(map))
    }

    @Test
    fun `live results are announced when they change, and not more often than allowed`() {
        val throttle = AnnouncementThrottle(quietNs = 1000)
        assertEquals("a star", throttle.next("a star", 5))
        assertNull(throttle.next("a star", 5000), "it has been said")
        assertEquals("a fish", throttle.next("a fish", 5001))
        assertNull(throttle.next("a mug", 5500), "it is too soon")
        assertNull(throttle.next("a fish", 7000), "it has been said")
        assertEquals("a mug", throttle.next("a mug", 7001))
    }

    @Test
    fun `after a reset the same is announced again`() {
        val throttle = AnnouncementThrottle(quietNs = 1000)
        throttle.next("a star", 5)
        throttle.reset()
        assertEquals("a star", throttle.next("a star", 6))
    }

    private fun objects(vararg labels: String) =
        Detections(labels.mapIndexed { index, label -> Detection(index, label, 0.9f, Box(0f, 0f, 1f, 1f)) })
}
