package xformer.mobile.demo.setup

import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertNull
import org.junit.jupiter.api.Test
import xformer.mobile.core.Bundle
import xformer.mobile.core.Manifest
import xformer.mobile.demo.R
import xformer.mobile.demo.model.Banner
import xformer.mobile.demo.model.Choice
import xformer.mobile.demo.model.StoredBundle
import xformer.mobile.demo.ui.XmlWords

class BundleTextTest {
    private val text = BundleText(XmlWords)
    private val a = StoredBundle("a", imported = false)
    private val b = StoredBundle("b", imported = true)
    private val opened = Bundle.open(File(checkNotNull(System.getProperty("xformer.bundles")), "classify-fp32"))

    @Test
    fun `the chosen bundle is described, the others named`() {
        val setup = Setup(listOf(a, b), Choice("b"), opened)
        assertEquals("a", text.of(a, setup))
        assertEquals("b\nclassify, 256x256, fp32: onnx, ort, tflite", text.of(b, setup))
    }

    @Test
    fun `a bundle that can't be used says why`() {
        val setup = Setup(listOf(a, b), Choice("a"), problem = "it is broken")
        assertEquals("a: can't be used (it is broken)", text.of(a, setup))
        assertEquals("b", text.of(b, setup))
    }

    @Test
    fun `without a choice, the first bundle is meant`() {
        assertEquals(a, Setup(listOf(a, b)).chosen)
        assertEquals(a, Setup(listOf(a, b), Choice("gone")).chosen)
        assertNull(Setup(emptyList()).chosen)
        assertNull(Setup().chosen)
    }

    @Test
    fun `only weights of a checkpoint need no warning`() {
        assertEquals(R.string.banner_sample, Banner.of(Manifest.WeightsSource.SAMPLE))
        assertEquals(R.string.banner_untrained, Banner.of(Manifest.WeightsSource.UNTRAINED))
        assertNull(Banner.of(Manifest.WeightsSource.CHECKPOINT))
    }
}
