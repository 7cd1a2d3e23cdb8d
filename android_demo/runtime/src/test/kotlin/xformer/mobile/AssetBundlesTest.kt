package xformer.mobile

import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import kotlin.test.BeforeTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir
import xformer.mobile.core.BundleException
import xformer.mobile.core.Format
import xformer.mobile.core.UsageException

class AssetBundlesTest {
    @TempDir
    lateinit var directory: File

    private lateinit var assets: File
    private lateinit var root: File
    private val opened = mutableListOf<String>()

    @BeforeTest
    fun putBundle() {
        assets = File(directory, "assets")
        root = File(directory, "no_backup")
        copyOf("classify-int8", File(assets, "bundles"))
    }

    private fun bundles() = AssetBundles(
        { name -> File(assets, name).list()?.sorted().orEmpty() },
        { name -> open(name) },
        root,
    )

    private fun open(name: String): InputStream {
        opened += name
        val file = File(assets, name)
        return if (file.isFile) file.inputStream() else throw FileNotFoundException(name)
    }

    private fun unpacked(): List<String> = File(root, "xformer-bundles").list().orEmpty().sorted()

    @Test
    fun `a bundle is unpacked once, under its content's key`() {
        val first = bundles().unpack("bundles/classify-int8")
        assertEquals("classify", first.task.id)
        assertTrue(first.artifact(Format.TFLITE).file.startsWith(root))
        val key = sha256(File(assets, "bundles/classify-int8/manifest.json").readBytes()).take(16)
        assertEquals(listOf("bundles%2Fclassify-int8-$key"), unpacked())
        assertEquals(3, first.golden(pngs).count())
        val stamp = first.artifact(Format.ONNX).file.lastModified()
        opened.clear()
        val again = bundles().unpack("bundles/classify-int8")
        assertEquals(setOf("bundles/classify-int8/manifest.json"), opened.toSet())
        assertEquals(stamp, again.artifact(Format.ONNX).file.lastModified())
    }

    @Test
    fun `what was damaged since is unpacked anew`() {
        val file = bundles().unpack("bundles/classify-int8").artifact(Format.TFLITE).file
        file.writeBytes(ByteArray(10))
        assertEquals(file, bundles().unpack("bundles/classify-int8").artifact(Format.TFLITE).file)
        file.delete()
        bundles().unpack("bundles/classify-int8").artifact(Format.TFLITE)
    }

    @Test
    fun `another content of the name takes its place, other names stay`() {
        copyOf("segment-int8", File(assets, "bundles"))
        File(assets, "bundles/classify-int8").copyRecursively(File(assets, "bundles/classify"))
        for (name in listOf("segment-int8", "classify-int8", "classify")) bundles().unpack("bundles/$name")
        assertEquals(3, unpacked().size)
        File(assets, "bundles/classify").deleteRecursively()
        File(Fixtures.bundles, "classify-fp32").copyRecursively(File(assets, "bundles/classify"))
        assertEquals("fp32", bundles().unpack("bundles/classify").precision)
        assertEquals(3, unpacked().size)
        assertEquals("int8", bundles().unpack("bundles/classify-int8").precision)
        assertEquals(3, unpacked().size)
    }

    @Test
    fun `a bundle that is broken or missing leaves nothing`() {
        File(assets, "bundles/classify-int8/model.onnx").writeBytes(ByteArray(10))
        assertFailsWith<BundleException> { bundles().unpack("bundles/classify-int8") }
        assertEquals(emptyList(), unpacked())
        val error = assertFailsWith<BundleException> { bundles().unpack("bundles/other") }
        assertEquals(
            "the app's assets hold no bundle bundles/other: there is no bundles/other/manifest.json",
            error.message,
        )
        File(assets, "bundles/classify-int8/model.onnx").delete()
        assertFailsWith<BundleException> { bundles().unpack("bundles/classify-int8") }
        assertEquals(emptyList(), unpacked())
    }

    @Test
    fun `an old bundle stays while the new one can't be unpacked`() {
        bundles().unpack("bundles/classify-int8")
        val before = unpacked()
        val manifest = File(assets, "bundles/classify-int8/manifest.json")
        manifest.writeText(manifest.readText() + "\n")
        File(assets, "bundles/classify-int8/model.tflite").writeBytes(ByteArray(10))
        assertFailsWith<BundleException> { bundles().unpack("bundles/classify-int8") }
        assertEquals(before, unpacked())
    }

    @Test
    fun `a name that is no directory among the assets is refused`() {
        for (name in listOf("", "/", "a/", "/a", "a//b", "..", "a/../b", "./a")) {
            val error = assertFailsWith<UsageException>(name) { bundles().unpack(name) }
            assertFalse('\n' in error.message.orEmpty())
        }
    }

    @Test
    fun `assets that can't be listed are an error of the bundle`() {
        val broken = AssetBundles({ throw IOException("gone") }, { open(it) }, root)
        assertFailsWith<BundleException> { broken.unpack("bundles/classify-int8") }
    }
}
