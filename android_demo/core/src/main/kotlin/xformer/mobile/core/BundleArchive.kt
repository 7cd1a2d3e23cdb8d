package xformer.mobile.core

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream
import java.io.RandomAccessFile
import java.util.Locale
import java.util.zip.ZipEntry
import java.util.zip.ZipFile

/**
 * Puts bundles where they can be opened: from a zip file that a user chose, or from an app's assets.
 *
 * A bundle appears whole or not at all: it is written beside its place, every file is checked against the manifest, and
 * then it is renamed. What the manifest does not name (such as __MACOSX or .DS_Store) is left out. One call at a time
 * does its work; others wait.
 */
public object BundleArchive {
    /**
     * What an archive may take: [maxEntries] files and folders, [maxArchiveBytes] packed, [maxUnpackedBytes] unpacked,
     * and unpacked not more than [maxRatio] times as many bytes as packed.
     */
    public data class Limits(
        val maxEntries: Int = 10_000,
        val maxArchiveBytes: Long = 512L shl 20,
        val maxUnpackedBytes: Long = 1L shl 30,
        val maxRatio: Int = 200,
    )

    /**
     * Unpacks a zip file to [directory], which must not exist yet, and opens it. Does not close [zip].
     *
     * The bundle may be at the top of the archive or in one folder. Nothing outside [directory] and a hidden directory
     * beside it is written, and links in the archive are never made: one is a small file that has the wrong sha256.
     *
     * @throws UsageException [directory] exists.
     * @throws BundleException the archive is broken or hostile, holds no bundle or several, or exceeds [limits]; or
     *     there is no room.
     */
    @Synchronized
    public fun unpack(zip: InputStream, directory: File, limits: Limits = Limits()): Bundle {
        if (directory.exists()) throw UsageException("$directory exists; remove it, or choose another name")
        return staged(directory) { staging ->
            val packed = File(staging, ".zip")
            write(packed, zip, Budget(limits.maxArchiveBytes, "the archive"))
            val bundle = File(staging, directory.name)
            try {
                checkDirectorySize(packed, limits)
                ZipFile(packed, Charsets.ISO_8859_1).use { archive -> unpack(archive, packed.length(), bundle, limits) }
            } catch (error: IOException) {
                throw BundleException("the archive can't be read: ${error.message}", error)
            } catch (error: IllegalArgumentException) { // some releases of Android for a name that they can't decode
                throw BundleException("the archive can't be read: ${error.message}", error)
            }
            bundle
        }
    }

    /**
     * Copies a bundle to [directory] and opens it. [names] are all of the bundle's files, relative and with forward
     * slashes; [open] opens one.
     *
     * Where [directory] holds this very bundle whole, nothing is copied; another bundle there is replaced.
     *
     * @throws BundleException a file is missing or broken, or there is no room.
     */
    @Synchronized
    public fun copy(names: Collection<String>, open: (String) -> InputStream, directory: File): Bundle {
        val manifest = try {
            open(Manifest.FILE).use { Manifest.content(it, MANIFEST) }
        } catch (error: IOException) {
            throw BundleException("can't read $MANIFEST: ${error.message}", error)
        }
        present(directory, manifest)?.let { return it }
        return staged(directory) { staging ->
            val bundle = File(staging, directory.name)
            install(manifest, names, open, bundle, Budget(Long.MAX_VALUE, "the bundle"))
            bundle
        }
    }

    /**
     * Deletes a bundle that was put at [directory], but nothing that a symbolic link leads to. Returns whether nothing
     * is there any more.
     */
    @Synchronized
    public fun remove(directory: File): Boolean {
        deleteTree(directory)
        return !directory.exists()
    }

    private const val MANIFEST = "the bundle's ${Manifest.FILE}"

    /** The bundle in [directory], if it is whole and has that very manifest. */
    private fun present(directory: File, manifest: ByteArray): Bundle? = try {
        val file = File(directory, Manifest.FILE)
        val isSame = file.isFile && file.readBytes().contentEquals(manifest)
        if (isSame) Bundle.open(directory).also { it.verify() } else null
    } catch (_: BundleException) {
        null
    } catch (_: IOException) {
        null
    }

    /** Lets [make] make a bundle in a hidden directory beside [directory], checks it and puts it in place. */
    private fun staged(directory: File, make: (File) -> File): Bundle {
        val place = directory.absoluteFile
        val staging = File(place.parentFile, ".${place.name}.partial")
        try {
            deleteTree(staging) // what a killed process has left
            if (!staging.mkdirs()) throw BundleException("can't make the directory $staging")
            val made = make(staging)
            Bundle.open(made).verify()
            val old = File(staging, ".old")
            if (place.exists() && !place.renameTo(old)) throw BundleException("can't replace $place")
            if (!made.renameTo(place)) {
                old.renameTo(place)
                throw BundleException("can't write $place")
            }
            return Bundle.open(directory)
        } finally {
            deleteTree(staging)
        }
    }

    // ---- zip ------------------------------------------------------------------------------------------------

    private fun unpack(archive: ZipFile, packedBytes: Long, bundle: File, limits: Limits) {
        if (archive.size() > limits.maxEntries) tooManyEntries(limits)
        val entries = archive.entries().asSequence().toList()
        checkNames(entries)
        val files = entries.filterNot { it.isDirectory }.associateBy { it.name }
        val top = top(files.keys)
        val names = files.keys.filter { it.startsWith(top) }.map { it.removePrefix(top) }
        val open = { name: String -> archive.getInputStream(files.getValue(top + name)) }
        val budget = Budget(minOf(limits.maxUnpackedBytes, limits.maxRatio * packedBytes), "the bundle")
        val manifest = open(Manifest.FILE).use { Manifest.content(it, MANIFEST) }
        install(manifest, names, open, bundle, budget)
    }

    private fun checkNames(entries: List<ZipEntry>) {
        val seen = HashSet<String>()
        for (entry in entries) {
            val name = entry.name
            val parts = name.removeSuffix("/").split('/')
            if (parts.any { it.isEmpty() || it == "." || it == ".." } || '\\' in name || '\u0000' in name ||
                DRIVE.containsMatchIn(name)
            ) {
                throw BundleException("the archive has an entry ${quote(name)}, whose name leads elsewhere")
            }
            // Android's shared storage takes names that differ in case for one.
            if (!seen.add(name.removeSuffix("/").lowercase(Locale.ROOT))) {
                throw BundleException("the archive has an entry ${quote(name)} twice")
            }
        }
    }

    private val DRIVE = Regex("^[A-Za-z]:")

    /** The folder that the bundle is in, with a slash; empty where it is at the top. */
    private fun top(names: Set<String>): String {
        if (Manifest.FILE in names) return ""
        val found = names.filter { it.count { letter -> letter == '/' } == 1 && it.endsWith("/${Manifest.FILE}") }
        return when (found.size) {
            1 -> found.single().removeSuffix(Manifest.FILE)
            0 -> throw BundleException("the archive holds no bundle: no ${Manifest.FILE} at its top or in a folder")
            else -> throw BundleException("the archive holds ${found.size} bundles; pack one bundle an archive")
        }
    }

    /**
     * ZipFile reads the whole list of entries at once; a list that can't be one of ours is refused before.
     *
     * Which of several ends of the archive is the one that counts is for ZipFile to say: none may have such a list.
     * What only looks like an end has a list that does not fit before it.
     */
    private fun checkDirectorySize(packed: File, limits: Limits) {
        RandomAccessFile(packed, "r").use { file ->
            val tail = ByteArray(minOf(file.length(), END_BYTES + MAX_COMMENT_BYTES).toInt())
            val start = file.length() - tail.size
            file.seek(start)
            file.readFully(tail)
            for (end in 0..tail.size - END_BYTES.toInt()) {
                if (littleEndian(tail, end) != END_SIGNATURE) continue
                val bytes = littleEndian(tail, end + DIRECTORY_BYTES_AT)
                val isThere = bytes <= start + end || bytes == IN_ZIP64
                if (isThere && bytes > ENTRY_BYTES * limits.maxEntries) tooManyEntries(limits)
            }
        }
    }

    private fun littleEndian(bytes: ByteArray, at: Int): Long =
        (3 downTo 0).fold(0L) { value, i -> (value shl 8) or (bytes[at + i].toLong() and 0xff) }

    private fun tooManyEntries(limits: Limits): Nothing =
        throw BundleException("the archive has more than ${limits.maxEntries} entries; a bundle has fewer")

    private const val END_SIGNATURE = 0x06054b50L
    private const val END_BYTES = 22L
    private const val MAX_COMMENT_BYTES = 0xffffL
    private const val DIRECTORY_BYTES_AT = 12

    /** The size stands elsewhere, for it takes more than 32 bits. */
    private const val IN_ZIP64 = 0xffffffffL

    /** An entry takes 46 bytes in the list, its name, and what a packer adds. */
    private const val ENTRY_BYTES = 1024L

    // ---- files ----------------------------------------------------------------------------------------------

    /** So many bytes may still be written; [what] names them. */
    private class Budget(private val limit: Long, val what: String) {
        private var spent = 0L

        fun spend(count: Int) {
            spent += count
            if (spent > limit) throw BundleException("$what takes more than $limit bytes, which is too many")
        }
    }

    /** Writes the manifest, and the files of [names] that it names. */
    private fun install(
        content: ByteArray,
        names: Collection<String>,
        open: (String) -> InputStream,
        bundle: File,
        budget: Budget,
    ) {
        val manifest = Manifest.parse(content, MANIFEST)
        val single = manifest.fileEntries().map { it.file }
        val (trees, artifacts) = manifest.artifacts.partition { it.format == Format.COREML }
        val inTrees = trees.flatMap { tree -> names.filter { it.startsWith("${tree.file}/") } }
        write(File(bundle, Manifest.FILE), content.inputStream(), budget)
        val known = names.toHashSet()
        for (name in (single + artifacts.map { it.file } + inTrees).distinct()) {
            if (name !in known) throw BundleException("the bundle lacks $name, which its manifest names")
            if (!isPath(name)) throw BundleException("the bundle has a file ${quote(name)}, which it may not")
            val source = try {
                open(name)
            } catch (error: IOException) {
                throw BundleException("can't read $name of the bundle: ${error.message}", error)
            }
            source.use { write(File(bundle, name), it, budget) }
        }
    }

    private fun write(file: File, source: InputStream, budget: Budget) {
        try {
            file.parentFile.mkdirs()
            FileOutputStream(file).use { output ->
                source.forEachBlock { block, count ->
                    budget.spend(count)
                    output.write(block, 0, count)
                }
            }
        } catch (error: IOException) {
            throw BundleException("can't write ${budget.what}: ${error.message}", error)
        }
    }
}
