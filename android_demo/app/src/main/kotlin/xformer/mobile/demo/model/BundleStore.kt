package xformer.mobile.demo.model

import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleArchive
import xformer.mobile.core.BundleException
import java.io.File
import java.io.InputStream

/** The bundles that are built into the app: `assets/bundles/NAME`. An interface, so that the store runs without Android. */
interface BuiltInBundles {
    /** Their names. */
    fun names(): List<String>

    /**
     * Have one as files in [directory], and open it; what is there already is used again.
     *
     * @throws BundleException it is broken, or there is no room.
     */
    fun open(name: String, directory: File): Bundle
}

/**
 * A bundle that can be chosen.
 *
 * @property imported whether the user brought it; else it is built into the app.
 */
data class StoredBundle(val name: String, val imported: Boolean)

/**
 * The bundles that the app has: built in ones and imported ones. No two have one name. All functions block.
 *
 * @param directory the app's own: holds the imported bundles, and copies of the built-in ones that were used.
 */
class BundleStore(private val builtIn: BuiltInBundles, directory: File) {
    private val importedDirectory = File(directory, "imported")
    private val copies = File(directory, "built-in")

    /** All of them by name, the built-in ones first. What is no bundle's name is left out. */
    fun list(): List<StoredBundle> {
        val inApp = builtIn.names().filter(BundleName::isValid).sorted()
        val imported =
            importedDirectory.listFiles().orEmpty().filter { it.isDirectory }.map { it.name }
                .filter(BundleName::isValid).minus(inApp.toSet()).sorted()
        return inApp.map { StoredBundle(it, imported = false) } + imported.map { StoredBundle(it, imported = true) }
    }

    /**
     * Open a bundle of that name; null is the first one.
     *
     * @throws BundleException there is none of that name, or it is broken.
     */
    fun open(name: String?): Bundle {
        val all = list()
        val found =
            if (name == null) {
                all.firstOrNull() ?: throw BundleException("the app has no bundle; build one in or import one")
            } else {
                all.find { it.name == name }
                    ?: throw BundleException("the app has no bundle '$name'; it has ${names(all)}")
            }
        return if (found.imported) {
            Bundle.open(File(importedDirectory, found.name))
        } else {
            builtIn.open(found.name, File(copies, found.name))
        }
    }

    /**
     * Unpack a .zip file with a bundle; the name is made from the file's.
     *
     * @throws BundleException it holds no bundle, or a hostile one, or there is no room.
     */
    fun import(fileName: String, zip: InputStream): StoredBundle {
        importedDirectory.mkdirs()
        val name = BundleName.of(fileName, list().map { it.name }.toSet())
        BundleArchive.unpack(zip, File(importedDirectory, name))
        return StoredBundle(name, imported = true)
    }

    /** Delete an imported bundle; nothing happens where there is none of that name. */
    fun remove(name: String) {
        if (BundleName.isValid(name)) File(importedDirectory, name).deleteRecursively()
    }

    private fun names(bundles: List<StoredBundle>): String =
        if (bundles.isEmpty()) "none" else bundles.joinToString { it.name }
}
