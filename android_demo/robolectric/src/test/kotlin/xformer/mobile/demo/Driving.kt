package xformer.mobile.demo

import android.app.Activity
import android.view.View
import android.view.ViewGroup
import android.widget.TextView
import java.io.File
import kotlin.test.assertTrue
import org.robolectric.shadows.ShadowLooper

/** What `make test-android` has exported. */
internal val fixtures: File = File(System.getProperty("xformer.bundles")).parentFile

/** Lets the main thread work until [isThere]; [shown] is told where that does not come. */
internal fun waitFor(what: String, shown: () -> Any = { "" }, seconds: Int = 180, isThere: () -> Boolean) {
    val last = System.nanoTime() + seconds * 1_000_000_000L
    while (true) {
        ShadowLooper.idleMainLooper()
        if (isThere()) return
        assertTrue(System.nanoTime() < last, "$what did not come; there is ${shown()}")
        Thread.sleep(20)
    }
}

internal fun text(screen: Activity, id: Int): String = screen.findViewById<TextView>(id).text.toString()

/** The texts of the views that can be seen, from the top. */
internal fun texts(view: View): List<String> = when {
    view.visibility != View.VISIBLE -> emptyList()
    view is ViewGroup -> (0 until view.childCount).flatMap { texts(view.getChildAt(it)) }
    view is TextView && view.text.isNotEmpty() -> listOf(view.text.toString())
    else -> emptyList()
}
