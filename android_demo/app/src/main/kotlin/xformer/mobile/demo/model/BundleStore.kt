package xformer.mobile.demo.model

import java.io.File
import java.io.InputStream
import xformer.mobile.core.Bundle
import xformer.mobile.core.BundleArchive
import xformer.mobile.core.BundleException

/** The bundles of the app: `assets/bundles/NAME`. An interface, so that the store runs without Android. */
interface BuiltInBundles {
    /** Their names. */
    fun names(): List<String>

    /**
     * Have one as files, and open it.
     *
     * @throws BundleException it is broken, or there is no room.
     */
    suspend fun open(name: String): Bundle
}

/**
 * A bundle that can be chosen.
 *
 * @property imported whether the user brought it; else it is built into the app.
 */
data class StoredBundle(val name: String, val imported: Boolean)

/**
 * The bundles that the app has: built in ones and imported ones. No two have one name. All functions use files.
 *
 * @param directory holds the imported bundles, and nothing else.
 */
class BundleStore(private val builtIn: BuiltInBundles, private val directory: File) {

    /** All of them by name, the built-in ones first. What is no bundle's name is left out. */
    fun list(): List<StoredBundle> {
        val inApp = builtIn.names().filter(BundleName::isValid).sorted()
        val imported =
            directory.listFiles().orEmpty().filter { it.isDirectory }.map { it.name }
                .filter(BundleName::isValid).minus(inApp.toSet()).sorted()
        return inApp.map { StoredBundle(it, imported = false) } + imported.map { StoredBundle(it, imported = true) }
    }

    /**
     * The bundle of that name; null is the first one.
     *
     * @throws BundleException there is none.
     */
    fun find(name: String?): StoredBundle {
        val all = list()
        if (all.isEmpty()) throw BundleException("the app has no bundle; build one in, or import one")
        return all.find { it.name == (name ?: all.first().name) }
            ?: throw BundleException("the app has no bundle '$name'; it has ${all.joinToString { it.name }}")
    }

    /**
     * Open a bundle.
     *
     * @throws BundleException it is broken, or not there any more.
     */
    suspend fun open(bundle: StoredBundle): Bundle =
        if (bundle.imported) Bundle.open(File(directory, bundle.name)) else builtIn.open(bundle.name)

    /**
     * Unpack a .zip file with a bundle; the name is made from the file's.
     *
     * @throws BundleException it holds no bundle, or a hostile one, or there is no room.
     */
    fun import(fileName: String, zip: InputStream): StoredBundle {
        if (!directory.isDirectory && !directory.mkdirs()) throw BundleException("can't make the folder $directory")
        val name = BundleName.of(fileName, list().map { it.name }.toSet())
        BundleArchive.unpack(zip, File(directory, name))
        return StoredBundle(name, imported = true)
    }

    /** Delete an imported bundle; nothing happens where there is none of that name. */
    fun remove(name: String) {
        if (BundleName.isValid(name)) File(directory, name).deleteRecursively()
    }
}
