package xformer.mobile.demo.benchmark

import java.io.File
import java.io.IOException
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

class ResultStoreTest {
    @TempDir
    lateinit var directory: File

    private val folder get() = File(directory, "results")
    private val store get() = ResultStore(folder)

    @Test
    fun `what is written is found, and nothing else lies there`() {
        val file = store.write("a.json", "{}\n")
        assertEquals("{}\n", file.readText())
        assertEquals(file, store.find("a.json"))
        assertEquals(listOf("a.json"), folder.list()?.toList())
    }

    @Test
    fun `a file is replaced`() {
        store.write("a.json", "old, and longer")
        assertEquals("new", store.write("a.json", "new").readText())
    }

    @Test
    fun `files outside of the folder are neither found nor written nor deleted`() {
        val outside = File(directory, "secret.json").apply { writeText("secret") }
        store.write("a.json", "")
        assertNull(store.find("../secret.json"))
        assertNull(store.find(outside.path))
        assertFailsWith<IllegalArgumentException> { store.write("../secret.json", "") }
        assertFailsWith<IllegalArgumentException> { store.delete("../secret.json") }
        assertEquals("secret", outside.readText())
    }

    @Test
    fun `a folder is no file`() {
        File(folder, "a.json").mkdirs()
        assertNull(store.find("a.json"))
    }

    @Test
    fun `the oldest are deleted where there are too many`() {
        val few = ResultStore(folder, most = 3)
        for (number in 1..5) few.write("$number.json", "").setLastModified(1_000_000L * number)
        assertEquals(setOf("3.json", "4.json", "5.json"), folder.list()?.toSet())
    }

    @Test
    fun `deleting what is not there is fine`() {
        store.delete("a.json")
        store.write("a.json", "")
        store.delete("a.json")
        assertNull(store.find("a.json"))
    }

    @Test
    fun `a folder that can't be made is told`() {
        folder.writeText("a file")
        assertFailsWith<IOException> { store.write("a.json", "") }
    }
}
