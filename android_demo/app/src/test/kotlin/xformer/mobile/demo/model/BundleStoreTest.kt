package xformer.mobile.demo.model

import java.io.ByteArrayOutputStream
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleArchive
import xformer.mobile.core.BundleException

class BundleStoreTest {
    @TempDir
    lateinit var directory: File

    private val original = File(checkNotNull(System.getProperty("xformer.bundles")), "classify-fp32")

    /** The bundles of the app, by name; each is a copy of the same. */
    private inner class FakeAssets(private val names: List<String>) : BuiltInBundles {
        override fun names(): List<String> = names

        override suspend fun open(name: String): Bundle {
            val files = original.walk().filter { it.isFile }.map { it.relativeTo(original).path }.toList()
            return BundleArchive.copy(files, { File(original, it).inputStream() }, File(unpacked, name))
        }
    }

    private val unpacked get() = File(directory, "unpacked")

    private fun store(vararg names: String) = BundleStore(FakeAssets(names.toList()), File(directory, "imported"))

    private fun BundleStore.opened(name: String?): Bundle = runBlocking { open(find(name)) }

    @Test
    fun `built-in bundles come first, then imported ones, each by name`() {
        val store = store("b", "a")
        store.import("0.zip", zipped().inputStream())
        assertEquals(listOf("a", "b", "0"), store.list().map { it.name })
        assertEquals(listOf(false, false, true), store.list().map { it.imported })
    }

    @Test
    fun `an imported bundle can be opened and removed`() {
        val store = store()
        val imported = store.import("my model.zip", zipped().inputStream())
        assertEquals(StoredBundle("my-model", imported = true), imported)
        assertEquals("classify", store.opened("my-model").task.id)
        store.remove("my-model")
        assertEquals(emptyList(), store.list())
        assertFailsWith<BundleException> { store.opened("my-model") }
    }

    @Test
    fun `an import never takes another bundle's name`() {
        val store = store("a")
        assertEquals("a-2", store.import("a.zip", zipped().inputStream()).name)
        assertEquals("a-3", store.import("a.zip", zipped().inputStream()).name)
    }

    @Test
    fun `what is no bundle is not imported, and leaves nothing`() {
        val store = store()
        assertFailsWith<BundleException> { store.import("a.zip", "not a zip".byteInputStream()) }
        assertEquals(emptyList(), store.list())
        assertFalse(directory.walk().any { it.isFile })
    }

    @Test
    fun `a built-in bundle is opened, the first one by default`() {
        val store = store("b", "a")
        assertEquals("classify", store.opened("b").task.id)
        assertEquals("a", store.opened(null).directory.name)
    }

    @Test
    fun `a name that is not there is refused with those that are`() {
        val error = assertFailsWith<BundleException> { store("a").opened("c") }
        assertContains(error.message.orEmpty(), "'c'; it has a")
        assertFailsWith<BundleException> { store().opened(null) }
        assertFailsWith<BundleException> { store("a").opened("../unpacked/a") }
    }

    @Test
    fun `what is not named like a bundle is not listed`() {
        assertEquals(listOf("a"), store("a", ".hidden", "..", "x y").list().map { it.name })
    }

    private fun zipped(): ByteArray {
        val bytes = ByteArrayOutputStream()
        ZipOutputStream(bytes).use { zip ->
            for (file in original.walk().filter { it.isFile }) {
                zip.putNextEntry(ZipEntry("classify/" + file.relativeTo(original).path))
                zip.write(file.readBytes())
                zip.closeEntry()
            }
        }
        return bytes.toByteArray()
    }
}
