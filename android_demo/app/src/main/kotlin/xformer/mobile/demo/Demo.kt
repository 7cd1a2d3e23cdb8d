package xformer.mobile.demo

import android.content.Context
import java.io.File
import xformer.mobile.DeviceInfo
import xformer.mobile.XFormer
import xformer.mobile.XFormerOptions
import xformer.mobile.demo.benchmark.ResultStore
import xformer.mobile.demo.model.AppBundles
import xformer.mobile.demo.model.BundleStore
import xformer.mobile.demo.model.Choice
import xformer.mobile.demo.ui.ResourceWords
import xformer.mobile.demo.ui.Words

/** What all screens share: the bundles, the user's choice, the texts. It holds no activity, and is cheap to make. */
class Demo(context: Context) {
    private val app = context.applicationContext
    private val preferences = app.getSharedPreferences("choice", Context.MODE_PRIVATE)

    val words: Words = ResourceWords(app.resources)

    val bundles = BundleStore(AppBundles(app), File(app.noBackupFilesDir, "bundles"))

    /** Results that can be shared; see [ResultsProvider]. */
    val results = ResultStore(resultsDirectory(app), most = 10)

    /** What the device says of itself. */
    val device = DeviceInfo(app)

    /** What the user has chosen to run; kept. */
    var choice: Choice
        get() = Choice.of(preferences.all)
        set(value) {
            val editor = preferences.edit().clear()
            value.toMap().forEach { (name, word) -> editor.putString(name, word) }
            editor.apply()
        }

    /**
     * Open the model of a choice. Takes seconds.
     *
     * @throws xformer.mobile.core.XFormerException the bundle or the engine can't be used.
     */
    suspend fun open(choice: Choice): XFormer = XFormer.open(
        bundles.open(bundles.find(choice.bundle)),
        XFormerOptions(engine = choice.engine, threads = choice.threads, accelerator = choice.accelerator),
    )

    /** Why [open] failed, in words; also that there is no bundle yet, and how one comes into the app. Reads files. */
    fun problem(error: Exception): String =
        if (bundles.list().isEmpty()) {
            words.text(R.string.no_bundle)
        } else {
            words.text(R.string.model_failed, error.message ?: error.javaClass.simpleName)
        }

    companion object {
        /** Where results lie until they are shared. */
        fun resultsDirectory(context: Context): File = File(context.cacheDir, "results")
    }
}
