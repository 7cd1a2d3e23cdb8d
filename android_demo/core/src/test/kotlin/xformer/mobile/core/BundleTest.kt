package xformer.mobile.core

import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.io.TempDir
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.EnumSource
import java.io.File
import java.io.RandomAccessFile
import java.nio.file.Files
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertTrue

class BundleTest {
    @TempDir
    lateinit var temporary: File

    /** Opens a bundle and asks for all that it holds. */
    private fun use(directory: File): Bundle {
        val bundle = Bundle.open(directory)
        bundle.formats.forEach(bundle::artifact)
        val rule = bundle.postprocess()
        val fit = Fit.of(Size(64, 64), bundle.imageSize, bundle.resizeRule)
        for (case in bundle.golden(rawDecoder)) rule(case.outputs, fit)
        return bundle
    }

    @ParameterizedTest
    @EnumSource
    fun `what an export writes is given back`(task: Task) {
        val made = TestBundle(manifestOf(task))
        val bundle = use(made.write(temporary))
        assertEquals(task, bundle.task)
        assertEquals(listOf("cat", "dog", "cup"), bundle.labels)
        assertEquals(ImageSize(64, 64), bundle.imageSize)
        assertEquals(task == Task.SEGMENT, !bundle.isUntrained)
        for (format in bundle.formats) {
            val artifact = bundle.artifact(format)
            assertEquals(format, artifact.format)
            assertTrue(artifact.file.exists())
            if (format != Format.COREML) assertEquals(sha256(made.files.getValue(artifact.file.name)), artifact.sha256)
        }
        for (case in bundle.golden(rawDecoder)) {
            assertContentEquals(made.files.getValue("golden/${case.name}.png"), case.image.bytes)
            assertEquals(bundle.outputShapes.keys.toList(), case.outputs.keys.toList())
            for ((name, tensor) in case.outputs) {
                assertContentEquals(bundle.outputShapes.getValue(name), tensor.shape)
                assertContentEquals(made.files.getValue("golden/${case.name}.$name.f32"), littleEndian(tensor.values))
            }
        }
        assertEquals(listOf("000", "001"), bundle.golden(rawDecoder).map { it.name }.toList())
    }

    @Test
    fun `the rules of each task`() {
        fun bundle(task: Task) = Bundle.open(writeBundle(File(temporary, task.id), task))
        val classify = bundle(Task.CLASSIFY)
        assertEquals("fp32", classify.precision)
        assertEquals(ResizeRule.RESIZE_SHORTER_CENTER_CROP, classify.resizeRule)
        assertEquals(listOf(Format.ONNX, Format.ORT), classify.formats)
        assertEquals(5, classify.postprocess().topK)
        val detect = bundle(Task.DETECT)
        assertEquals(ResizeRule.LETTERBOX, detect.resizeRule)
        assertEquals(listOf("stride8", "stride16", "stride32"), detect.outputShapes.keys.toList())
        val rule = checkNotNull(detect.postprocess().detection)
        assertEquals(listOf(8, 16, 32), rule.strides)
        assertEquals(Anchor(1.5384616f, 2f), rule.anchors[0][0])
        assertEquals(listOf(0.25f, 0.45f, 100), listOf(rule.scoreThreshold, rule.iouThreshold, rule.maxDetections))
        val segment = bundle(Task.SEGMENT)
        assertEquals(ResizeRule.RESIZE, segment.resizeRule)
        assertEquals(listOf(Rgb(0, 0, 0), Rgb(128, 0, 0), Rgb(0, 128, 0)), segment.postprocess().palette)
    }

    @Test
    fun `golden cases are read one at a time`() {
        val bundle = Bundle.open(writeBundle(temporary, Task.CLASSIFY))
        File(temporary, "golden/001.png").delete()
        val cases = bundle.golden(rawDecoder).iterator()
        assertEquals("000", cases.next().name)
        assertContains(refusal<BundleException> { cases.next() }, "001.png of the bundle ${temporary.name} is missing")
    }

    @Test
    fun `an artifact that is a directory has the sha256 of what sha256sum prints`() {
        // Of tree_sha256 in xformer_mobile/files.py for the same files. The last two change places in UTF-16.
        val files =
            mapOf("b" to "one", "a/c.bin" to "two", "a.b" to "three", "\uFF5E" to "four", "\uD83D\uDE00" to "five")
        for ((name, content) in files) File(temporary, name).apply { parentFile.mkdirs() }.writeText(content)
        File(temporary, "empty").mkdir()
        assertEquals("bb7ccf2453a84042f9a8a7de81fb517c923656ff1153b18d52cc5d84ed35748a", treeSha256(temporary))
    }

    @Test
    fun `a format that the bundle lacks`() {
        val bundle = Bundle.open(writeBundle(temporary, Task.CLASSIFY))
        val message = refusal<UsageException> { bundle.artifact(Format.TFLITE) }
        assertContains(message, "has no tflite artifact; it has onnx, ort")
    }

    // ---- files that are refused -----------------------------------------------------------------------------

    private class Bad(val task: Task, val problem: String, val change: (File) -> Unit)

    private fun bad(problem: String, task: Task = Task.CLASSIFY, change: (File) -> Unit) = Bad(task, problem, change)

    private fun link(link: File, target: File) {
        Files.createSymbolicLink(link.toPath(), target.toPath())
    }

    /** The right content, but it lies beside the bundle. */
    private fun moveOut(bundle: File, name: String) {
        val outside = File(bundle.parentFile, "outside")
        assertTrue(File(bundle, name).renameTo(outside))
        link(File(bundle, name), outside)
    }

    /** Another content of a file, with the right sha256 in the manifest. */
    private fun store(bundle: File, place: String, content: ByteArray) {
        val made = TestBundle(manifestOf(Task.CLASSIFY))
        val manifest = made.stored(made.manifest, place, content)
        made.write(bundle)
        File(bundle, Manifest.FILE).writeText(manifest.toString())
    }

    private fun change(bundle: File, edit: (JsonElement) -> JsonElement) {
        writeBundle(bundle, Task.CLASSIFY, edit)
    }

    private val badFiles = mapOf(
        "no directory" to bad("no such directory; xformer-export makes one") { it.deleteRecursively() },
        "no manifest" to bad("is not a bundle: it has no manifest.json") { File(it, "manifest.json").delete() },
        "manifest a directory" to bad("it has no manifest.json") {
            File(it, "manifest.json").delete()
            File(it, "manifest.json").mkdir()
        },
        "manifest huge" to bad("a manifest is smaller") { bundle ->
            RandomAccessFile(File(bundle, "manifest.json"), "rw").use { it.setLength(Manifest.MAX_BYTES + 1L) }
        },
        "manifest not JSON" to bad("is not JSON") { File(it, "manifest.json").writeText("{") },
        "artifact missing" to bad("model.onnx of the bundle bundle is missing") { File(it, "model.onnx").delete() },
        "artifact a directory" to bad("model.onnx of the bundle bundle is not a file") {
            File(it, "model.onnx").delete()
            File(it, "model.onnx").mkdir()
        },
        "artifact truncated" to bad("it was changed, truncated or exchanged") { bundle ->
            RandomAccessFile(File(bundle, "model.onnx"), "rw").use { it.setLength(it.length() - 1) }
        },
        "artifact with one bit flipped" to bad("it was changed, truncated or exchanged") { bundle ->
            val file = File(bundle, "model.onnx")
            file.writeBytes(file.readBytes().also { it[150] = (it[150].toInt() xor 1).toByte() })
        },
        "artifact outside" to bad("leads out of it") { moveOut(it, "model.onnx") },
        "artifact a link to itself" to bad("model.onnx") {
            File(it, "model.onnx").delete()
            link(File(it, "model.onnx"), File("model.onnx"))
        },
        "directory artifact a file" to bad("model.mlpackage of the bundle bundle is not a directory", Task.SEGMENT) {
            File(it, "model.mlpackage").deleteRecursively()
            File(it, "model.mlpackage").writeText("")
        },
        "directory artifact with another file" to bad("it was changed", Task.SEGMENT) {
            File(it, "model.mlpackage/more").writeText("")
        },
        "directory artifact with a link" to bad("more is a symbolic link", Task.SEGMENT) {
            link(File(it, "model.mlpackage/more"), File("Manifest.json"))
        },
        "directory artifact with a link back" to bad("more is a symbolic link", Task.SEGMENT) {
            link(File(it, "model.mlpackage/more"), File("."))
        },
        "golden outside" to bad("leads out of it") { moveOut(it, "golden") },
        "golden missing" to bad("000.png of the bundle bundle is missing") { File(it, "golden").deleteRecursively() },
        "golden input changed" to bad("was changed") { File(it, "golden/000.png").writeText("x") },
        "golden output changed" to bad("was changed") { File(it, "golden/000.logits.f32").writeBytes(ByteArray(12)) },
        "golden input of another size" to bad("golden/000.png of the bundle bundle can't be used: got 6144") {
            store(it, "golden/0/input", ByteArray(3 * 64 * 32))
        },
        "golden output short" to bad("does not have the shape (1, 3)") {
            store(it, "golden/0/outputs/logits", ByteArray(8))
        },
        "golden output long" to bad("has more than 12 bytes") {
            store(it, "golden/0/outputs/logits", ByteArray(16))
        },
        "golden output not finite" to bad("NaN or infinite in 'logits'") { bundle ->
            store(bundle, "golden/0/outputs/logits", littleEndian(floatArrayOf(0f, Float.NaN, 0f)))
        },
        "golden output of no name" to bad("lack 'logits'") { bundle ->
            change(bundle) { it.with("golden/0/outputs/logits", null) }
        },
        "sha256 of another file" to bad("not 000000000000...; it was changed") { bundle ->
            change(bundle) { it.with("artifacts/0/sha256", JsonPrimitive("0".repeat(64))) }
        },
    )

    @TestFactory
    fun `bad files are refused`(): List<DynamicTest> = badFiles.map { (name, bad) ->
        dynamicTest(name) {
            val bundle = writeBundle(File(temporary, "$name/bundle"), bad.task)
            bad.change(bundle)
            assertContains(refusal<BundleException> { use(bundle) }, bad.problem)
        }
    }

    @Test
    fun `a golden input of the wrong picture's size is refused`() {
        val bundle = Bundle.open(writeBundle(temporary, Task.CLASSIFY))
        val small = PictureDecoder { RgbImage(64, 32, ByteArray(3 * 64 * 32)) }
        val message = refusal<BundleException> { bundle.golden(small).first() }
        assertContains(message, "is 32x64, not 64x64")
    }

    @Test
    fun `a link inside the bundle is fine`() {
        val directory = writeBundle(temporary, Task.CLASSIFY)
        assertTrue(File(directory, "model.onnx").renameTo(File(directory, "renamed")))
        link(File(directory, "model.onnx"), File("renamed"))
        use(directory)
    }

    @Test
    fun `a bundle behind a link is fine`() {
        val directory = writeBundle(File(temporary, "bundle"), Task.DETECT)
        link(File(temporary, "link"), directory)
        use(File(temporary, "link"))
    }
}
