package xformer.mobile.demo

import android.content.Context
import android.content.Intent
import android.net.Uri
import android.provider.OpenableColumns
import java.io.File
import java.io.FileNotFoundException
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import xformer.mobile.demo.benchmark.HeadlessPhase
import xformer.mobile.demo.benchmark.HeadlessRuns
import xformer.mobile.demo.benchmark.HeadlessStatus

/** The headless entry as a device farm starts it, with a real model in ONNX Runtime; and the provider of result files. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
class HeadlessTest {
    private val app: Context = RuntimeEnvironment.getApplication()
    private val directory get() = checkNotNull(app.getExternalFilesDir(null))

    @Test
    fun `it measures what its extras say, and leaves both files where adb finds them`() {
        val intent = intent().putExtra("bundle", "classify-int8").putExtra("engines", "onnxruntime")
            .putExtra("threads", 1).putExtra("runs", 10).putExtra("output", "pixel.json")
        val controller = start(intent)
        val status = awaitEnd()
        assertEquals(HeadlessStatus.State.PASSED, status.state, status.toJson())
        waitFor("the words") { text(controller.get(), R.id.status) == status.toLogLine() }
        assertFalse(controller.get().isFinishing)
        val measured = json("pixel.json").getValue("measurements").jsonArray.map { it.jsonObject }
        assertTrue(measured.isNotEmpty())
        for (one in measured) {
            val inference = one.getValue("phases").jsonObject.getValue("inference").jsonObject
            assertEquals(10, inference.getValue("samples_ns").jsonArray.size)
        }
        assertEquals("passed", json("pixel.status.json").getValue("status").jsonPrimitive.content)
    }

    @Test
    fun `a game loop test needs no arguments but its log, and closes the app`() {
        val log = File(app.cacheDir, "log.json").apply { writeText("") }
        val intent = intent().setAction("com.google.intent.action.TEST_LOOP").putExtra("scenario", 1)
            .setDataAndType(Uri.fromFile(log), "application/javascript")
        val controller = start(intent)
        // It would measure two hundred runs of every engine: that it is cut off has to be in the log too.
        waitFor("the beginning") { (phase() as? HeadlessPhase.Running)?.step != null }
        controller.pause().stop()
        val status = awaitEnd()
        assertEquals(status.toJson(), log.readText())
        controller.restart().start().resume()
        waitFor("the end of the app") { controller.get().isFinishing }
    }

    @Test
    fun `leaving the screen cuts it off, with a status`() {
        val controller = start(intent().putExtra("bundle", "classify-int8").putExtra("runs", 100_000))
        waitFor("the beginning") { (phase() as? HeadlessPhase.Running)?.step != null }
        controller.pause().stop()
        val status = awaitEnd()
        assertEquals(HeadlessStatus.State.ERROR, status.state)
        assertContains(status.message, "the app left the screen")
        assertEquals("error", json("results.status.json").getValue("status").jsonPrimitive.content)
    }

    @Test
    fun `turning the device does not`() {
        val controller = start(intent().putExtra("bundle", "classify-int8").putExtra("runs", 100_000))
        waitFor("the beginning") { (phase() as? HeadlessPhase.Running)?.step != null }
        controller.recreate()
        Thread.sleep(500)
        assertTrue(phase() is HeadlessPhase.Running)
        controller.pause().stop()
        awaitEnd()
    }

    @Test
    fun `an argument that nobody knows is refused`() {
        start(intent().putExtra("bundel", "classify-int8"))
        assertContains(awaitEnd().message, "unknown argument 'bundel'")
    }

    @Test
    fun `results are read through the provider, and nothing else is`() {
        val provider = Robolectric.setupContentProvider(ResultsProvider::class.java, "xformer.mobile.demo.results")
        val file = Demo(app).results.write("latency-1.json", "{}")
        File(app.cacheDir, "secret.json").writeText("secret")
        val uri = ResultsProvider.uriOf(file)
        assertEquals("{}", app.contentResolver.openInputStream(uri)!!.use { it.readBytes().decodeToString() })
        val cursor = provider.query(uri, null, null, null, null)
        assertTrue(cursor.moveToFirst())
        assertEquals("latency-1.json", cursor.getString(cursor.getColumnIndexOrThrow(OpenableColumns.DISPLAY_NAME)))
        assertEquals(2, cursor.getLong(cursor.getColumnIndexOrThrow(OpenableColumns.SIZE)))
        assertFailsWith<FileNotFoundException> { provider.openFile(uri, "rw") }
        for (path in listOf("..%2Fsecret.json", "../secret.json", "none.json", "")) {
            val other = Uri.parse("content://xformer.mobile.demo.results/$path")
            assertFailsWith<FileNotFoundException>(path) { provider.openFile(other, "r") }
            assertEquals(0, provider.query(other, null, null, null, null).count)
        }
    }

    private fun intent() = Intent(app, HeadlessActivity::class.java)

    private fun start(intent: Intent): ActivityController<HeadlessActivity> =
        Robolectric.buildActivity(HeadlessActivity::class.java, intent).setup()

    private fun phase(): HeadlessPhase = HeadlessRuns.phase.value

    private fun awaitEnd(): HeadlessStatus {
        waitFor("the end", ::phase, seconds = 600) { phase() is HeadlessPhase.Done }
        return (phase() as HeadlessPhase.Done).status
    }

    private fun json(name: String): JsonObject = Json.parseToJsonElement(File(directory, name).readText()).jsonObject
}
