package xformer.mobile.demo

import android.app.Activity
import android.content.ComponentCallbacks2
import android.content.Context
import android.content.Intent
import android.content.res.Configuration
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Insets
import android.net.Uri
import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.view.WindowInsets
import android.widget.RadioButton
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.shadows.ShadowLooper
import xformer.mobile.EngineChoice
import xformer.mobile.demo.model.Choice

/**
 * The app's screens, drawn by Android's own code, with the real models in ONNX Runtime. Each screen is kept as a picture
 * in the directory of the property `xformer.pictures`, for people to look at.
 */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34], qualifiers = "w411dp-h891dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class ScreensTest {
    private val app: Context = RuntimeEnvironment.getApplication()

    @Test
    fun `a picture is classified as Python does it`() {
        val screen = look("classify", "scene-360x640")
        val best = expected("classify", "scene-360x640").jsonArray.first().jsonObject.getValue("label")
        assertContains(rows(screen).first(), best.jsonPrimitive.content)
        assertEquals(app.getString(R.string.banner_sample), text(screen, R.id.banner))
        keep(screen, "classify")
    }

    @Test
    fun `objects are found as Python finds them`() {
        val screen = look("detect", "scene-360x640")
        val labels = expected("detect", "scene-360x640").jsonArray.map { it.jsonObject.getValue("label").jsonPrimitive.content }
        assertTrue(labels.isNotEmpty())
        for ((label, row) in labels.zip(rows(screen))) assertContains(row, label)
        keep(screen, "detect")
    }

    @Test
    fun `a class map has its legend`() {
        val screen = look("segment", "scene-360x640")
        assertContains(rows(screen).first(), "background")
        keep(screen, "segment")
    }

    @Test
    @Config(qualifiers = "+night")
    fun `in the dark`() {
        keep(look("segment", "scene-320x240"), "segment-night")
    }

    @Test
    @Config(qualifiers = "+land")
    fun `a device on its side`() {
        keep(look("detect", "scene-320x240"), "detect-landscape")
    }

    @Test
    fun `letters of twice the size`() {
        RuntimeEnvironment.setFontScale(2f)
        val screen = look("classify", "scene-320x240")
        assertTrue(rows(screen).size >= 5)
        keep(screen, "classify-large-text")
    }

    @Test
    fun `a result survives a rotation`() {
        val controller = open("classify", "scene-256x256")
        val before = rows(controller.get())
        val turned = Configuration(controller.get().resources.configuration)
        turned.orientation = Configuration.ORIENTATION_LANDSCAPE
        controller.configurationChange(turned)
        waitFor("the result after the rotation") { rows(controller.get()) == before }
    }

    @Test
    fun `what is no picture is said`() {
        val screen = start(PictureActivity::class.java, "classify").get()
        choose(screen, File.createTempFile("no-picture", ".png").apply { writeText("nothing") })
        waitFor("the message", { texts(screen.window.decorView) }) {
            "it is in no picture format" in text(screen, R.id.message_text)
        }
        keep(screen, "no-picture")
    }

    @Test
    fun `without the permission the camera's screen asks for it`() {
        val screen = start(MainActivity::class.java, "detect").get()
        waitFor("the message") { text(screen, R.id.message_text).isNotEmpty() }
        assertEquals(app.getString(R.string.camera_permission), text(screen, R.id.message_text))
        assertEquals(app.getString(R.string.camera_permission_allow), text(screen, R.id.message_action))
        keep(screen, "no-permission")
    }

    @Test
    fun `without a camera a picture is offered`() {
        shadowOf(app as android.app.Application).grantPermissions(android.Manifest.permission.CAMERA)
        val screen = start(MainActivity::class.java, "detect").get()
        waitFor("the message") { text(screen, R.id.message_text) == app.getString(R.string.camera_none) }
        assertEquals(app.getString(R.string.open_picture), text(screen, R.id.message_action))
        keep(screen, "no-camera")
    }

    @Test
    fun `bundles and engines are listed, with reasons where one can't be used`() {
        val screen = start(SetupActivity::class.java, "segment").get()
        waitFor("the bundles") { texts(screen.findViewById(R.id.bundles)).size >= 3 }
        val engines = texts(screen.findViewById(R.id.engines)).joinToString()
        assertContains(engines, "ONNX Runtime")
        assertContains(engines, "LiteRT can't be loaded")
        keep(screen, "setup")
    }

    @Test
    fun `the benchmark compares and measures`() {
        val screen = start(BenchmarkActivity::class.java, "classify").get()
        waitFor("the start button") { screen.findViewById<View>(R.id.start).isEnabled }
        screen.findViewById<View>(R.id.start).performClick()
        waitFor("the end", seconds = 600) {
            text(screen, R.id.progress_text) == app.getString(R.string.benchmark_finished)
        }
        val report = texts(screen.findViewById(R.id.report)).joinToString("\n")
        assertContains(report, app.getString(R.string.parity_pass))
        screen.findViewById<View>(R.id.root).scrollTo(0, screen.findViewById<View>(R.id.progress_text).top)
        keep(screen, "benchmark")
        screen.findViewById<View>(R.id.share).performClick()
        waitFor("the file") { shadowOf(screen).peekNextStartedActivity() != null }
        assertEquals(Intent.ACTION_CHOOSER, shadowOf(screen).nextStartedActivity.action)
    }

    @Test
    fun `a picture is there again when the system has ended the app meanwhile`() {
        val before = open("classify", "scene-256x256")
        val saved = Bundle()
        before.saveInstanceState(saved).pause().stop().destroy()
        val after = Robolectric.buildActivity(PictureActivity::class.java).setup(saved)
        waitFor("the result") { rows(after.get()) == rows(before.get()) }
    }

    @Test
    fun `a picture after another, and after the background, is looked at anew`() {
        val controller = open("classify", "scene-256x256")
        val first = rows(controller.get())
        controller.pause().stop().restart().start().resume()
        controller.get().onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_BACKGROUND)
        choose(controller.get(), File(fixtures, "pictures/scene-360x640.png"))
        waitFor("the other result", { texts(controller.get().window.decorView) }) {
            rows(controller.get()).let { it.isNotEmpty() && it != first }
        }
    }

    @Test
    fun `a bundle is imported, and removed`() {
        val screen = start(SetupActivity::class.java, "classify").get()
        waitFor("the bundles") { texts(screen.findViewById(R.id.bundles)).size >= 3 }
        val zip = File(File(app.cacheDir, "zips").apply { mkdirs() }, "my bundle.zip")
        zipped(File(fixtures, "bundles/segment-int8"), zip)
        screen.findViewById<View>(R.id.import_bundle).performClick()
        answer(screen, zip)
        val imported = app.getString(R.string.import_done, "my-bundle")
        waitFor("the import", { text(screen, R.id.notice) }) { text(screen, R.id.notice) == imported }
        assertEquals("my-bundle", Demo(app).choice.bundle)
        assertEquals(View.VISIBLE, screen.findViewById<View>(R.id.remove_bundle).visibility)
        keep(screen, "setup-imported")
        screen.findViewById<View>(R.id.remove_bundle).performClick()
        waitFor("the end of it") { texts(screen.findViewById(R.id.bundles)).none { "my-bundle" in it } }
    }

    @Test
    fun `what is chosen quickly after something else takes nothing back`() {
        val screen = start(SetupActivity::class.java, "classify").get()
        waitFor("the engines") { texts(screen.findViewById(R.id.engines)).size >= 2 }
        val button = { group: Int, index: Int -> screen.findViewById<ViewGroup>(group).getChildAt(index) }
        button(R.id.threads, 2).performClick()
        button(R.id.engines, 1).performClick()
        val expected = Choice("classify-int8", EngineChoice.ONNX_RUNTIME, threads = 2)
        assertEquals(expected, Demo(app).choice)
        waitFor("what is chosen") { (button(R.id.engines, 1) as RadioButton).isChecked }
        assertEquals(expected, Demo(app).choice)
    }

    @Test
    fun `what is no bundle is not imported, and said`() {
        val screen = start(SetupActivity::class.java, "classify").get()
        waitFor("the bundles") { texts(screen.findViewById(R.id.bundles)).size >= 3 }
        screen.findViewById<View>(R.id.import_bundle).performClick()
        answer(screen, File.createTempFile("no-bundle", ".zip").apply { writeText("nothing") })
        val refused = app.getString(R.string.import_failed, "")
        waitFor("the refusal", { text(screen, R.id.notice) }) { text(screen, R.id.notice).startsWith(refused) }
        assertEquals(View.GONE, screen.findViewById<View>(R.id.remove_bundle).visibility)
    }

    @Test
    fun `nothing lies under the system's bars or a cutout`() {
        val screens =
            listOf(
                MainActivity::class.java,
                PictureActivity::class.java,
                SetupActivity::class.java,
                BenchmarkActivity::class.java,
                HeadlessActivity::class.java,
            )
        for (kind in screens) {
            // Refused at once, where arguments mean anything.
            val intent = Intent(app, kind).putExtra("bundle", "no such bundle")
            val screen = Robolectric.buildActivity(kind, intent).setup().get()
            // As from Android 15 on: the window reaches below the bars, and the insets say how far.
            val root = screen.findViewById<View>(R.id.root)
            root.dispatchApplyWindowInsets(
                WindowInsets.Builder()
                    .setInsets(WindowInsets.Type.statusBars(), Insets.of(0, 60, 0, 0))
                    .setInsets(WindowInsets.Type.navigationBars(), Insets.of(0, 0, 0, 90))
                    .setInsets(WindowInsets.Type.displayCutout(), Insets.of(40, 70, 0, 0))
                    .build(),
            )
            val padding = listOf(root.paddingLeft, root.paddingTop, root.paddingRight, root.paddingBottom)
            assertEquals(listOf(40, 70, 0, 90), padding, kind.simpleName)
        }
    }

    // ---- driving the app --------------------------------------------------------------------------------------

    private fun look(task: String, picture: String): PictureActivity = open(task, picture).get()

    private fun open(task: String, picture: String): ActivityController<PictureActivity> {
        val controller = start(PictureActivity::class.java, task)
        choose(controller.get(), File(fixtures, "pictures/$picture.png"))
        waitFor("the result of $task", { texts(controller.get().window.decorView) }) { rows(controller.get()).isNotEmpty() }
        return controller
    }

    private fun <A : Activity> start(screen: Class<A>, task: String): ActivityController<A> {
        Demo(app).choice = Choice(bundle = "$task-int8", threads = 1)
        return Robolectric.buildActivity(screen).setup()
    }

    private fun choose(screen: PictureActivity, file: File) {
        screen.findViewById<View>(R.id.choose_picture).performClick()
        answer(screen, file)
    }

    private fun answer(screen: Activity, file: File) {
        val asked = shadowOf(screen).nextStartedActivityForResult.intent
        assertEquals(Intent.ACTION_OPEN_DOCUMENT, asked.action)
        shadowOf(screen).receiveResult(asked, Activity.RESULT_OK, Intent().setData(Uri.fromFile(file)))
    }

    private fun rows(screen: Activity): List<String> = texts(screen.findViewById(R.id.rows))

    private fun zipped(directory: File, zip: File) {
        ZipOutputStream(zip.outputStream()).use { to ->
            for (file in directory.walk().filter { it.isFile }) {
                to.putNextEntry(ZipEntry(file.relativeTo(directory).path))
                file.inputStream().use { it.copyTo(to) }
            }
        }
    }

    private fun expected(task: String, picture: String): JsonElement {
        val document = Json.parseToJsonElement(File(fixtures, "expected/$task-int8/expected.json").readText())
        val case = document.jsonObject.getValue("cases").jsonArray.map(JsonElement::jsonObject).single {
            it.getValue("picture").jsonObject.getValue("name").jsonPrimitive.content == picture
        }
        return case.getValue("formats").jsonObject.getValue("onnx").jsonObject.getValue("result")
    }

    private fun keep(screen: Activity, name: String) {
        ShadowLooper.idleMainLooper()
        val view = screen.window.decorView
        val picture = Bitmap.createBitmap(view.width, view.height, Bitmap.Config.ARGB_8888)
        view.jumpDrawablesToCurrentState()
        view.draw(Canvas(picture))
        val file = File(System.getProperty("xformer.pictures"), "$name.png")
        file.parentFile!!.mkdirs()
        file.outputStream().use { picture.compress(Bitmap.CompressFormat.PNG, 100, it) }
    }
}
