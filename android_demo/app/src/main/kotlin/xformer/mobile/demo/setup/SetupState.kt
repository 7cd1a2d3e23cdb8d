package xformer.mobile.demo.setup

import android.content.ContentResolver
import android.net.Uri
import android.provider.OpenableColumns
import java.io.FileNotFoundException
import java.io.IOException
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import xformer.mobile.XFormer
import xformer.mobile.core.Bundle
import xformer.mobile.core.XFormerException
import xformer.mobile.demo.Demo
import xformer.mobile.demo.R
import xformer.mobile.demo.model.Choice
import xformer.mobile.demo.model.EngineMenu
import xformer.mobile.demo.model.StoredBundle

/**
 * What the setup screen shows.
 *
 * @property bundles null until they are found.
 * @property opened the chosen bundle; null where it can't be opened, and [problem] says why.
 * @property menu what [opened] can be run with.
 * @property notice what became of an import; null where there is nothing to say.
 */
data class Setup(
    val bundles: List<StoredBundle>? = null,
    val choice: Choice = Choice(),
    val opened: Bundle? = null,
    val problem: String? = null,
    val menu: EngineMenu = EngineMenu(emptyList()),
    val notice: String? = null,
) {
    /** The bundle that the choice means. */
    val chosen: StoredBundle?
        get() = bundles?.let { all -> all.find { it.name == choice.bundle } ?: all.firstOrNull() }
}

/** What the setup screen keeps while the device is turned. For the main thread. */
class SetupState(private val demo: Demo, private val resolver: ContentResolver) : AutoCloseable {
    private val scope = CoroutineScope(Dispatchers.IO)
    private val one = Mutex()
    private val setups = MutableStateFlow(Setup())

    val setup: StateFlow<Setup> = setups.asStateFlow()

    init {
        work { refresh() }
    }

    /** Change the choice, which may be newer than what is shown, and show what comes of it. */
    fun choose(change: (Choice) -> Choice) {
        demo.choice = change(demo.choice)
        work { refresh() }
    }

    /** Import the bundle of a .zip file that the user has chosen. */
    fun import(zip: Uri) {
        setups.value = setups.value.copy(notice = demo.words.text(R.string.import_working))
        work {
            val notice = try {
                val stream = resolver.openInputStream(zip) ?: throw FileNotFoundException()
                val imported = stream.use { demo.bundles.import(nameOf(zip), it) }
                demo.choice = demo.choice.copy(bundle = imported.name)
                demo.words.text(R.string.import_done, imported.name)
            } catch (error: XFormerException) {
                importFailed(error.message)
            } catch (error: CancellationException) {
                throw error
            } catch (_: IOException) {
                importFailed(demo.words.text(R.string.file_unreadable))
            } catch (_: RuntimeException) { // whatever the other app's provider throws
                importFailed(demo.words.text(R.string.file_unreadable))
            }
            refresh(notice)
        }
    }

    /** Delete the chosen bundle, if it was imported. */
    fun remove() {
        val chosen = setups.value.chosen ?: return
        if (!chosen.imported) return
        work {
            demo.bundles.remove(chosen.name)
            demo.choice = demo.choice.copy(bundle = null)
            refresh()
        }
    }

    override fun close() {
        scope.cancel()
    }

    private fun work(action: suspend () -> Unit) {
        scope.launch { one.withLock { action() } }
    }

    private suspend fun refresh(notice: String? = null) {
        val bundles = demo.bundles.list()
        // A bundle that was chosen may have gone with another version of the app.
        if (bundles.none { it.name == demo.choice.bundle }) demo.choice = demo.choice.copy(bundle = null)
        val known = Setup(bundles, demo.choice, notice = notice)
        setups.value = try {
            val opened = known.chosen?.let { demo.bundles.open(it) }
            val menu = opened?.let { EngineMenu(XFormer.engines(it)) } ?: known.menu
            known.copy(opened = opened, menu = menu)
        } catch (error: CancellationException) {
            throw error
        } catch (error: XFormerException) {
            known.copy(problem = error.message)
        }
    }

    private fun importFailed(why: String?): String = demo.words.text(R.string.import_failed, why.orEmpty())

    private fun nameOf(zip: Uri): String {
        val cursor = resolver.query(zip, arrayOf(OpenableColumns.DISPLAY_NAME), null, null, null)
        val name = cursor?.use { if (it.moveToFirst()) it.getString(0) else null }
        return name ?: zip.lastPathSegment.orEmpty()
    }
}
