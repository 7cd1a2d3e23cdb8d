package xformer.mobile.demo

import android.Manifest
import android.content.ActivityNotFoundException
import android.content.Intent
import android.content.pm.PackageManager
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraManager
import android.hardware.display.DisplayManager
import android.net.Uri
import android.os.Bundle
import android.os.SystemClock
import android.provider.Settings
import android.view.TextureView
import android.view.View
import android.view.ViewGroup
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import xformer.mobile.XFormer
import xformer.mobile.core.UsageException
import xformer.mobile.demo.camera.CameraChoice
import xformer.mobile.demo.camera.CameraPreview
import xformer.mobile.demo.camera.CameraProblem
import xformer.mobile.demo.camera.Cameras
import xformer.mobile.demo.geometry.ScaleMode
import xformer.mobile.demo.live.Analyzer
import xformer.mobile.demo.live.FrameAnalysis
import xformer.mobile.demo.live.LiveResult
import xformer.mobile.demo.live.LiveState
import xformer.mobile.demo.live.PlacedFrame
import xformer.mobile.demo.model.Banner
import xformer.mobile.demo.model.Choice
import xformer.mobile.demo.model.EngineText
import xformer.mobile.demo.model.SlotState
import xformer.mobile.demo.ui.Figures
import xformer.mobile.demo.ui.Message
import xformer.mobile.demo.ui.ResultScreen
import xformer.mobile.demo.ui.RetainingActivity
import xformer.mobile.demo.ui.keepClearOfBars

/** The live picture of a camera, with what the model finds in it. */
class MainActivity : RetainingActivity<LiveState>() {
    private lateinit var screen: ResultScreen
    private lateinit var preview: CameraPreview
    private lateinit var manager: CameraManager
    private var cameras: List<CameraChoice> = emptyList()
    private var cameraProblem: CameraProblem? = null
    private var modelProblem: String? = null

    /** Takes the frames while a model is there; read by the camera's thread. */
    @Volatile
    private var analyzer: Analyzer<PlacedFrame, LiveResult>? = null

    override fun createState() = LiveState(Demo(this))

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.activity_main)
        val root = findViewById<View>(R.id.root)
        root.keepClearOfBars()
        screen = ResultScreen(root, ScaleMode.CROP)
        manager = getSystemService(CameraManager::class.java)
        val texture = TextureView(this)
        findViewById<ViewGroup>(R.id.stage).addView(texture, 0)
        preview = CameraPreview(
            texture,
            manager,
            getSystemService(DisplayManager::class.java),
            { frame, geometry ->
                val placed = PlacedFrame(frame, geometry)
                analyzer?.offer(placed) ?: placed.close()
            },
            ::onCameraProblem,
        )
        opens(R.id.open_picture, PictureActivity::class.java)
        opens(R.id.open_setup, SetupActivity::class.java)
        opens(R.id.open_benchmark, BenchmarkActivity::class.java)
        findViewById<View>(R.id.switch_camera).setOnClickListener {
            state.camera += 1
            startCamera()
        }
    }

    override fun onStart() {
        super.onStart()
        state.models.want(state.demo.choice)
        visible.launch { state.models.state.collect(::onModel) }
        startCamera()
    }

    override fun onStop() {
        preview.stop()
        stopAnalyzer()
        if (!isChangingConfigurations) state.models.want(null)
        super.onStop()
    }

    override fun onRequestPermissionsResult(code: Int, permissions: Array<String>, granted: IntArray) {
        super.onRequestPermissionsResult(code, permissions, granted)
        // Nothing is granted or refused where the question was taken from the screen before it was answered.
        if (granted.isNotEmpty()) state.answered = true
        startCamera()
    }

    // ---- the camera -----------------------------------------------------------------------------------------

    private fun startCamera() {
        preview.stop()
        stopResults()
        cameraProblem = null
        if (checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED) {
            findCameras()
            val camera = if (cameras.isEmpty()) null else cameras[state.camera % cameras.size]
            if (camera != null) preview.start(camera) else cameraProblem = cameraProblem ?: CameraProblem.NO_CAMERA
        } else {
            cameraProblem = CameraProblem.NO_PERMISSION
        }
        findViewById<View>(R.id.switch_camera).visibility = if (cameras.size > 1) View.VISIBLE else View.GONE
        showMessage()
    }

    private fun findCameras() {
        cameras = try {
            Cameras(manager).all()
        } catch (error: CameraAccessException) {
            cameraProblem = CameraProblem.ofReason(error.reason)
            emptyList()
        }
    }

    private fun onCameraProblem(problem: CameraProblem) {
        preview.stop()
        stopResults()
        cameraProblem = problem
        showMessage()
    }

    private fun askForCamera() = requestPermissions(arrayOf(Manifest.permission.CAMERA), 0)

    private fun openSettings() {
        val settings = Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, Uri.fromParts("package", packageName, null))
        try {
            startActivity(settings)
        } catch (_: ActivityNotFoundException) {
            startActivity(Intent(Settings.ACTION_SETTINGS))
        }
    }

    // ---- the model ------------------------------------------------------------------------------------------

    private suspend fun onModel(model: SlotState<Choice, XFormer>) {
        stopAnalyzer()
        stopResults()
        modelProblem = (model as? SlotState.Failed)?.let {
            withContext(Dispatchers.IO) { state.demo.problem(it.error) }
        }
        val ready = (model as? SlotState.Ready)?.model
        screen.banner(ready?.let { Banner.of(it.bundle.manifest.model.weights.source) })
        screen.figures(
            when {
                ready != null -> EngineText.of(ready.report, state.demo.words)
                model is SlotState.Opening -> getString(R.string.model_opening)
                else -> ""
            },
        )
        if (ready != null) {
            val analysis = FrameAnalysis(ready)
            analyzer = Analyzer(visible, analysis::analyze) { onResult(ready, it) }
        }
        showMessage()
    }

    private fun onResult(model: XFormer, result: Result<LiveResult>) {
        val found = result.getOrNull()
        if (found == null) {
            val error = result.exceptionOrNull()
            // A model that was closed meanwhile is no news.
            if (error is UsageException) return
            stopResults()
            val why = if (error is OutOfMemoryError) getString(R.string.memory_full) else error?.message
            screen.figures(getString(R.string.something_failed, why ?: error?.javaClass?.simpleName))
            return
        }
        if (cameraProblem != null) return
        screen.result(found.drawing, found.palette)
        val meter = state.meter
        meter.add(SystemClock.elapsedRealtimeNanos(), found.inferenceNs)
        val engine = EngineText.of(model.report, state.demo.words)
        val rate = meter.framesPerSecond
        val median = meter.medianInferenceNs
        screen.figures(
            if (rate == null || median == null) {
                engine
            } else {
                getString(R.string.live_figures, engine, rate, Figures.milliseconds(state.demo.words, median))
            },
        )
    }

    private fun stopAnalyzer() {
        analyzer?.close()
        analyzer = null
    }

    private fun stopResults() {
        state.meter.reset()
        screen.result(null, emptyList())
    }

    // ---- words ----------------------------------------------------------------------------------------------

    private fun showMessage() {
        screen.message(cameraProblem?.let(::cameraMessage) ?: modelMessage())
    }

    private fun cameraMessage(problem: CameraProblem): Message = when {
        problem == CameraProblem.NO_CAMERA -> Message(getString(problem.text), R.string.open_picture) { openPicture() }
        problem != CameraProblem.NO_PERMISSION ->
            Message(getString(problem.text), R.string.try_again) { startCamera() }
        // After a second refusal the system asks no more, and says nothing about it.
        state.answered && !shouldShowRequestPermissionRationale(Manifest.permission.CAMERA) ->
            Message(getString(problem.text), R.string.camera_open_settings) { openSettings() }
        else ->
            Message(getString(R.string.camera_permission), R.string.camera_permission_allow) { askForCamera() }
    }

    private fun modelMessage(): Message? {
        val text = modelProblem ?: return null
        return Message(text, R.string.open_setup) { startActivity(Intent(this, SetupActivity::class.java)) }
    }

    private fun openPicture() = startActivity(Intent(this, PictureActivity::class.java))

    private fun opens(button: Int, screen: Class<*>) {
        findViewById<View>(button).setOnClickListener { startActivity(Intent(this, screen)) }
    }
}
