package xformer.mobile.demo.model

import android.content.Context
import java.io.IOException
import xformer.mobile.XFormer
import xformer.mobile.core.Bundle

/** The bundles of the app's assets, below `bundles/`. */
class AppBundles(private val context: Context) : BuiltInBundles {
    override fun names(): List<String> = try {
        context.assets.list(ROOT).orEmpty().toList()
    } catch (_: IOException) {
        emptyList() // what some versions of Android throw where there is no such folder
    }

    override suspend fun open(name: String): Bundle = XFormer.unpack(context, "$ROOT/$name")

    private companion object {
        const val ROOT = "bundles"
    }
}
