package xformer.mobile.demo.ui

import android.graphics.Insets
import android.os.Build
import android.view.View
import android.view.WindowInsets

/**
 * Keeps a screen's root clear of the system's bars and of the display's cutouts: from Android 15 on the window reaches
 * below them. On older systems the window ends at them, and there is nothing to add.
 */
fun View.keepClearOfBars() {
    setOnApplyWindowInsetsListener { view, insets ->
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
            val bars: Insets = insets.getInsets(WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout())
            view.setPadding(bars.left, bars.top, bars.right, bars.bottom)
            WindowInsets.CONSUMED
        } else {
            insets
        }
    }
}
