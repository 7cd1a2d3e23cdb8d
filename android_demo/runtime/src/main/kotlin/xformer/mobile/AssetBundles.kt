package xformer.mobile

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleArchive
import xformer.mobile.core.BundleException
import xformer.mobile.core.UsageException

/**
 * Bundles among an app's assets, unpacked below [root] where engines can open them as files.
 *
 * [list] names what is in a directory of the assets (nothing for a file), [open] opens a file of them.
 */
internal class AssetBundles(
    private val list: (String) -> List<String>,
    private val open: (String) -> InputStream,
    root: File,
) {
    private val home = File(root, "xformer-bundles")

    /**
     * The bundle in the assets' directory [name], unpacked. Where it is unpacked already, it is checked; unpackings of
     * another content under the same name are removed.
     *
     * @throws UsageException a name that is no path of a directory.
     * @throws BundleException there is no such bundle, or it is broken, or there is no room.
     */
    fun unpack(name: String): Bundle {
        if (name.split('/').any { it.isEmpty() || it == "." || it == ".." }) {
            throw UsageException("'$name' is not valid; give the directory among the assets, such as bundles/classify")
        }
        val key = try {
            open("$name/$MANIFEST").use { sha256(it) }.take(KEY_LETTERS)
        } catch (error: IOException) {
            throw BundleException("the app's assets hold no bundle $name: there is no $name/$MANIFEST", error)
        }
        val flat = name.replace("%", "%25").replace("/", "%2F")
        val bundle = BundleArchive.copy(files(name), { open("$name/$it") }, File(home, "$flat-$key"))
        prune(flat, key)
        return bundle
    }

    private fun files(directory: String): List<String> = try {
        list(directory).flatMap { name ->
            val below = list("$directory/$name")
            if (below.isEmpty()) listOf(name) else files("$directory/$name").map { "$name/$it" }
        }
    } catch (error: IOException) {
        throw BundleException("can't list the app's assets in $directory: ${error.message}", error)
    }

    private fun prune(flat: String, key: String) {
        val others = home.listFiles { file ->
            file.name != "$flat-$key" && file.name.startsWith("$flat-") && KEY.matches(file.name.removePrefix("$flat-"))
        }
        others?.forEach { it.deleteRecursively() }
    }

    private companion object {
        const val MANIFEST = "manifest.json"
        const val KEY_LETTERS = 16
        val KEY = Regex("[0-9a-f]{$KEY_LETTERS}")

        fun sha256(content: InputStream): String {
            val digest = MessageDigest.getInstance("SHA-256")
            val block = ByteArray(1 shl 16)
            while (true) {
                val count = content.read(block)
                if (count < 0) break
                digest.update(block, 0, count)
            }
            return digest.digest().joinToString("") { "%02x".format(it) }
        }
    }
}
