package xformer.mobile.core

import org.junit.jupiter.api.AfterEach
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.io.TempDir
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.ValueSource
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.LinkOption
import java.util.zip.CRC32
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class BundleArchiveTest {
    @TempDir
    lateinit var temporary: File

    private val place get() = File(temporary, "app/bundle")

    private val made = TestBundle(manifestOf(Task.SEGMENT))

    /** Whatever happens, nothing lies about: beside its place, or outside. */
    @AfterEach
    fun `nothing is left`() {
        val left = File(temporary, "app").list().orEmpty().toList() - "bundle"
        assertEquals(emptyList(), left)
        assertEquals(emptyList(), temporary.list().orEmpty().toList() - setOf("app", "kept"))
    }

    private fun zip(entries: Map<String, ByteArray>, method: Int = ZipEntry.DEFLATED): ByteArray {
        val content = ByteArrayOutputStream()
        ZipOutputStream(content).use { zip ->
            for ((name, bytes) in entries) {
                val entry = ZipEntry(name)
                entry.method = method
                if (method == ZipEntry.STORED) {
                    entry.size = bytes.size.toLong()
                    entry.crc = CRC32().apply { update(bytes) }.value
                }
                zip.putNextEntry(entry)
                zip.write(bytes)
                zip.closeEntry()
            }
        }
        return content.toByteArray()
    }

    private fun unpack(zip: ByteArray, limits: BundleArchive.Limits = BundleArchive.Limits()): Bundle =
        BundleArchive.unpack(zip.inputStream(), place, limits)

    private fun refused(zip: ByteArray, limits: BundleArchive.Limits = BundleArchive.Limits()): String {
        val message = refusal<BundleException> { unpack(zip, limits) }
        assertTrue(!place.exists())
        return message
    }

    /** Everything that the manifest names is there, byte for byte, and nothing else. */
    private fun assertWhole(bundle: Bundle) {
        assertEquals(place, bundle.directory)
        val found = place.walkTopDown().filter { it.isFile }.associate { file ->
            file.relativeTo(place).path to file.readBytes().toList()
        }
        assertEquals(made.all().mapValues { it.value.toList() }, found)
        bundle.verify()
    }

    // ---- archives that are fine -----------------------------------------------------------------------------

    private val junk = mapOf(
        "__MACOSX/._bundle" to ByteArray(3),
        "__MACOSX/bundle/._manifest.json" to ByteArray(3),
        "bundle/.DS_Store" to ByteArray(3),
        "bundle/notes of mine (1).txt" to ByteArray(3),
        "bundle/more/" to ByteArray(0),
    )

    private fun inFolder(folder: String) = made.all().mapKeys { "$folder/${it.key}" }

    private fun fine() = mapOf(
        "at the top" to zip(made.all()),
        "in a folder" to zip(mapOf("bundle/" to ByteArray(0), "bundle/golden/" to ByteArray(0)) + inFolder("bundle")),
        "in a folder of any name" to zip(inFolder("My bündle (1)")),
        "stored" to zip(made.all(), ZipEntry.STORED),
        "with what systems add" to zip(junk + inFolder("bundle")),
        "the manifest last" to zip(made.files + made.all()),
    )

    @TestFactory
    fun `a bundle is unpacked`(): List<DynamicTest> = fine().map { (name, zip) ->
        dynamicTest(name) {
            assertWhole(unpack(zip))
            place.deleteRecursively()
        }
    }

    /**
     * One bundle, packed by `zip -r`, by `zip -r -` into a pipe, by Python's zipfile (stored, into a pipe), and by a
     * script in the layout of macOS's Finder.
     */
    @ParameterizedTest
    @ValueSource(strings = ["zip", "zip-pipe", "python", "macos"])
    fun `what packers make is unpacked`(name: String) {
        val resource = checkNotNull(javaClass.getResourceAsStream("/archives/$name.zip"))
        val bundle = resource.use { BundleArchive.unpack(it, place) }
        bundle.verify()
        assertEquals(Task.CLASSIFY, bundle.task)
        assertEquals(listOf("000", "001"), bundle.golden(rawDecoder).map { it.name }.toList())
        val found = place.list().orEmpty().toSet()
        assertEquals(setOf("manifest.json", "report.json", "model.onnx", "model.ort", "golden"), found)
    }

    @Test
    fun `the stream is not closed`() {
        var isClosed = false
        val stream = object : InputStream() {
            val content = zip(made.all()).inputStream()

            override fun read(): Int = content.read()

            override fun close() {
                isClosed = true
            }
        }
        BundleArchive.unpack(stream, place)
        assertTrue(!isClosed)
    }

    @Test
    fun `what a killed unpacking has left is cleared`() {
        File(temporary, "app/.bundle.partial/bundle/golden").mkdirs()
        File(temporary, "app/.bundle.partial/bundle/golden/x").writeText("x")
        assertWhole(unpack(zip(made.all())))
    }

    // ---- archives that are refused --------------------------------------------------------------------------

    private fun withEntry(name: String, content: ByteArray = ByteArray(3)) = zip(made.all() + (name to content))

    private val names = mapOf(
        "upwards" to "../x",
        "upwards inside" to "golden/../../x",
        "upwards at the end" to "golden/..",
        "absolute" to "/etc/x",
        "with backslashes" to "..\\x",
        "of a drive" to "C:x",
        "with NUL" to "x\u0000y",
        "of here" to "./x",
        "with an empty part" to "golden//x",
        "that differs in case only" to "MODEL.onnx",
        "of a folder and a file" to "model.onnx/",
        "of the manifest in capitals" to "MANIFEST.json",
    )

    @TestFactory
    fun `an entry whose name is hostile is refused`(): List<DynamicTest> = names.map { (what, name) ->
        dynamicTest("name $what") { assertContains(refused(withEntry(name)), "the archive has an entry '") }
    }

    private fun without(name: String) = zip(made.all() - name)

    private fun withFile(name: String, content: ByteArray) = zip(made.all() + (name to content))

    private fun patched(zip: ByteArray, old: String, new: String): ByteArray =
        String(zip, Charsets.ISO_8859_1).replace(old, new).toByteArray(Charsets.ISO_8859_1)

    /** The archive's list says of each entry that it is a symbolic link of Unix. */
    private fun withLinks(zip: ByteArray): ByteArray {
        val header = "PK\u0001\u0002"
        val text = String(zip, Charsets.ISO_8859_1)
        val changed = zip.copyOf()
        var at = text.indexOf(header)
        while (at >= 0) {
            changed[at + 5] = 3 // made on Unix
            changed[at + 41] = 0xA1.toByte() // S_IFLNK, 0777
            changed[at + 40] = 0xFF.toByte()
            at = text.indexOf(header, at + 1)
        }
        return changed
    }

    private fun bad(): Map<String, Pair<ByteArray, String>> = mapOf(
        "empty" to (ByteArray(0) to "the archive can't be read"),
        "no archive" to (ByteArray(1000) { 7 } to "the archive can't be read"),
        "an archive of nothing" to (zip(emptyMap()) to "the archive"),
        "no manifest" to (without("manifest.json") to "holds no bundle: no manifest.json at its top"),
        "manifest two folders down" to (zip(inFolder("a/b")) to "holds no bundle"),
        "two bundles" to (zip(inFolder("a") + inFolder("b")) to "holds 2 bundles; pack one bundle an archive"),
        "manifest not JSON" to (withFile("manifest.json", ByteArray(3)) to "the bundle's manifest.json is not JSON"),
        "artifact missing" to (without("model.onnx") to "the bundle lacks model.onnx, which its manifest names"),
        "golden missing" to (without("golden/001.png") to "the bundle lacks golden/001.png"),
        "report missing" to (without("report.json") to "the bundle lacks report.json"),
        "part of a directory missing" to (without("model.mlpackage/Manifest.json") to "it was changed, truncated"),
        "directory missing" to
            (zip(made.all().filterKeys { !it.startsWith("model.mlpackage") }) to "model.mlpackage of the bundle"),
        "more in a directory" to (withEntry("model.mlpackage/more") to "it was changed, truncated or exchanged"),
        "hidden file in a directory" to (withEntry("model.mlpackage/.more") to "/.more', which it may not"),
        "artifact changed" to (withFile("model.onnx", ByteArray(300)) to "it was changed, truncated or exchanged"),
        "golden changed" to (withFile("golden/000.png", ByteArray(300)) to "it was changed, truncated or exchanged"),
        "link in the place of an artifact" to
            (withLinks(withFile("model.onnx", "/etc/passwd".encodeToByteArray())) to "it was changed, truncated"),
        "a name twice" to (patched(withEntry("model.onnX"), "model.onnX", "model.onnx") to "'model.onnx' twice"),
        "a bomb as the manifest" to
            (withFile("manifest.json", ByteArray(17 shl 20)) to "manifest.json has more than 16777216 bytes"),
        "a bomb as an artifact" to
            (withFile("model.onnx", ByteArray(40 shl 20)) to "the bundle takes more than"),
        "cut short" to (zip(made.all()).let { it.copyOf(it.size - 30) } to "the archive can't be read"),
        "broken in the middle" to
            (zip(made.all()).also { it.fill(-1, it.size / 3, it.size / 3 + 200) } to "it was changed"),
    )

    @TestFactory
    fun `a bad archive is refused`(): List<DynamicTest> = bad().map { (name, case) ->
        dynamicTest(name) { assertContains(refused(case.first), case.second) }
    }

    @Test
    fun `links are never made`() {
        val bundle = unpack(withLinks(zip(made.all() + ("link" to "/etc/passwd".encodeToByteArray()))))
        assertWhole(bundle)
        assertTrue(place.walkTopDown().none { Files.isSymbolicLink(it.toPath()) })
    }

    @Test
    fun `limits are kept`() {
        val zip = zip(made.all())
        val bytes = made.all().values.sumOf { it.size }.toLong()
        val entries = made.all().size
        unpack(zip, BundleArchive.Limits(entries, zip.size.toLong(), bytes))
        place.deleteRecursively()
        val refused = mapOf(
            BundleArchive.Limits(maxEntries = entries - 1) to "more than ${entries - 1} entries",
            BundleArchive.Limits(maxEntries = 1) to "more than 1 entries", // by the size of the archive's list
            BundleArchive.Limits(maxArchiveBytes = zip.size - 1L) to "archive takes more than ${zip.size - 1} bytes",
            BundleArchive.Limits(maxUnpackedBytes = bytes - 1) to "bundle takes more than ${bytes - 1} bytes",
            BundleArchive.Limits(maxRatio = 1) to "bundle takes more than ${zip.size} bytes",
        )
        for ((limits, problem) in refused) assertContains(refused(zip, limits), problem)
    }

    /** A zip file with a list of entries of more than 2000 bytes, though there is only one entry. */
    private fun longList(comment: ByteArray = ByteArray(0)): ByteArray {
        val content = ByteArrayOutputStream()
        val extraField = byteArrayOf(0x77, 0x77, 0xcc.toByte(), 7) + ByteArray(1996)
        ZipOutputStream(content).use { zip ->
            zip.putNextEntry(ZipEntry("manifest.json").apply { extra = extraField })
        }
        val zip = content.toByteArray()
        zip[zip.size - 2] = comment.size.toByte()
        zip[zip.size - 1] = (comment.size shr 8).toByte()
        return zip + comment
    }

    /** What a zip file ends with: a list of so many bytes. */
    private fun end(listBytes: Int) = byteArrayOf('P'.code.toByte(), 'K'.code.toByte(), 5, 6) + ByteArray(8) +
        List(4) { (listBytes shr (8 * it)).toByte() } + ByteArray(6)

    @Test
    fun `a list of entries that is too long is refused before it is read`() {
        val comments = mapOf(
            "nothing" to ByteArray(0),
            "a comment" to ByteArray(500) { 7 },
            "the largest comment" to ByteArray(0xffff) { 7 },
            "another end" to end(listBytes = 0),
            "another end, and more" to end(listBytes = 0) + ByteArray(100),
            "the end of a larger format" to end(listBytes = -1),
        )
        val limits = BundleArchive.Limits(maxEntries = 1)
        for ((name, comment) in comments) {
            assertTrue("more than 1 entries" in refused(longList(comment), limits), name)
        }
        assertTrue("more than 1 entries" !in refused(longList(), limits.copy(maxEntries = 2)))
    }

    @Test
    fun `what only looks like an end of the archive is not taken for one`() {
        val comment = end(listBytes = 0x7f7f7f7f) + ByteArray(1)
        val zip = zip(made.all())
        zip[zip.size - 2] = comment.size.toByte()
        assertWhole(unpack(zip + comment))
    }

    @Test
    fun `a source that fails is refused`() {
        val failing = object : InputStream() {
            override fun read(): Int = throw IOException("the provider died")
        }
        val message = refusal<BundleException> { BundleArchive.unpack(failing, place) }
        assertEquals("can't write the archive: the provider died", message)
    }

    @Test
    fun `a place that is taken is refused and not touched`() {
        place.mkdirs()
        File(place, "x").writeText("x")
        assertFailsWith<UsageException> { unpack(zip(made.all())) }
        assertEquals(listOf("x"), place.list().orEmpty().toList())
    }

    @Test
    fun `archives changed at random are a bundle or refused`() {
        val zip = zip(made.all())
        forSeeds(150) { random ->
            try {
                assertWhole(unpack(mutated(zip, random)))
            } catch (_: BundleException) {
                assertTrue(!place.exists())
            }
            place.deleteRecursively()
        }
    }

    // ---- copies ---------------------------------------------------------------------------------------------

    private fun copy(files: Map<String, ByteArray>, opened: MutableList<String> = mutableListOf()): Bundle {
        val open = { name: String ->
            opened += name
            files[name]?.inputStream() ?: throw IOException("no asset $name")
        }
        return BundleArchive.copy(files.keys, open, place)
    }

    @Test
    fun `a bundle is copied once`() {
        assertWhole(copy(made.all() + ("more" to ByteArray(3))))
        val opened = mutableListOf<String>()
        assertWhole(copy(made.all(), opened))
        assertEquals(listOf("manifest.json"), opened)
    }

    @Test
    fun `another bundle is replaced`() {
        writeBundle(place, Task.CLASSIFY)
        assertWhole(copy(made.all()))
    }

    @Test
    fun `a broken copy is replaced`() {
        copy(made.all())
        File(place, "model.onnx").writeText("x")
        assertWhole(copy(made.all()))
        File(place, "golden").deleteRecursively()
        assertWhole(copy(made.all()))
    }

    @Test
    fun `what links of a replaced bundle lead to stays`() {
        val kept = File(temporary, "kept").apply { mkdir() }
        File(kept, "x").writeText("x")
        place.mkdirs()
        Files.createSymbolicLink(File(place, "link").toPath(), kept.toPath())
        assertWhole(copy(made.all()))
        assertEquals(listOf("x"), kept.list().orEmpty().toList())
    }

    @Test
    fun `a bundle that can't be copied leaves the old one`() {
        copy(made.all())
        val other = TestBundle(manifestOf(Task.DETECT)).all()
        assertContains(refusal<BundleException> { copy(other - "model.onnx") }, "the bundle lacks model.onnx")
        assertContains(refusal<BundleException> { copy(other + ("model.onnx" to ByteArray(1))) }, "it was changed")
        assertWhole(Bundle.open(place))
        assertContains(refusal<BundleException> { copy(emptyMap()) }, "can't read the bundle's manifest.json: no asset")
    }

    // ---- what is not wanted any more ------------------------------------------------------------------------

    @Test
    fun `a bundle is removed, and nothing that links of it lead to`() {
        val kept = File(temporary, "kept").apply { mkdir() }
        File(kept, "x").writeText("x")
        assertWhole(copy(made.all()))
        Files.createSymbolicLink(File(place, "golden/link").toPath(), kept.toPath())
        Files.createSymbolicLink(File(place, "broken").toPath(), File(kept, "y").toPath())
        repeat(2) {
            assertTrue(BundleArchive.remove(place))
            assertTrue(!Files.exists(place.toPath(), LinkOption.NOFOLLOW_LINKS))
        }
        Files.createSymbolicLink(place.toPath(), kept.toPath())
        assertTrue(BundleArchive.remove(place))
        assertEquals(listOf("x"), kept.list().orEmpty().toList())
    }
}
