package xformer.mobile.demo.ui

import android.app.Activity
import android.os.Bundle
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.cancel

/**
 * A screen whose state outlives the activity when the device is turned: the activity shows, the state [S] works.
 *
 * The state is made once, kept from one activity to the next, and closed when the screen is left for good. It must not
 * hold on to an activity or a view.
 */
abstract class RetainingActivity<S : AutoCloseable> : Activity() {
    /** There from [onCreate] on. */
    protected lateinit var state: S
        private set

    /** Runs on the main thread while the activity is visible: between [onStart] and [onStop]. */
    protected var visible: CoroutineScope = MainScope().apply { cancel() }
        private set

    /** A new state, for a screen that is opened. */
    protected abstract fun createState(): S

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        @Suppress("UNCHECKED_CAST")
        state = lastNonConfigurationInstance as S? ?: createState()
    }

    override fun onRetainNonConfigurationInstance(): Any = state

    override fun onStart() {
        super.onStart()
        visible = MainScope()
    }

    override fun onStop() {
        visible.cancel()
        super.onStop()
    }

    override fun onDestroy() {
        if (!isChangingConfigurations) state.close()
        super.onDestroy()
    }
}
