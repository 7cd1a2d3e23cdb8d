package xformer.mobile.demo.model

import android.content.res.AssetManager
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleArchive
import java.io.File

/** The bundles of the app's assets, below `bundles/`. */
class AssetBundles(private val assets: AssetManager) : BuiltInBundles {
    override fun names(): List<String> = assets.list(ROOT).orEmpty().toList()

    override fun open(name: String, directory: File): Bundle {
        val top = "$ROOT/$name"
        val names = files(top).map { it.removePrefix("$top/") }
        return BundleArchive.copy(names, { assets.open("$top/$it") }, directory)
    }

    /** The paths of all files below [path]; assets have no other way to tell a file from a folder. */
    private fun files(path: String): List<String> {
        val names = assets.list(path).orEmpty()
        return if (names.isEmpty()) listOf(path) else names.flatMap { files("$path/$it") }
    }

    private companion object {
        const val ROOT = "bundles"
    }
}
