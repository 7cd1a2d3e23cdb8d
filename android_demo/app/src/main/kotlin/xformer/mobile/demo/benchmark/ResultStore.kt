package xformer.mobile.demo.benchmark

import java.io.File
import java.io.IOException

/**
 * A folder of result files.
 *
 * @param most the oldest files beyond so many are deleted when one is added.
 */
class ResultStore(private val directory: File, private val most: Int = Int.MAX_VALUE) {
    /**
     * Write a file, whole or not at all.
     *
     * @throws IllegalArgumentException a name that is not that of a result file.
     * @throws IOException there is no room, or the folder can't be written.
     */
    fun write(name: String, text: String): File {
        val file = file(name)
        if (!directory.isDirectory && !directory.mkdirs()) throw IOException("can't make the folder $directory")
        val partial = File(directory, "$name.partial")
        partial.writeText(text)
        if (!partial.renameTo(file)) throw IOException("can't write $file")
        directory.listFiles { found -> found != file && ResultName.isValid(found.name) }.orEmpty()
            .sortedByDescending { it.lastModified() }
            .drop(most - 1)
            .forEach { it.delete() }
        return file
    }

    /** Delete a file; nothing happens where there is none. */
    fun delete(name: String) {
        file(name).delete()
    }

    /** The file of that name; null where there is none, or the name is not that of a result file. */
    fun find(name: String): File? = if (ResultName.isValid(name)) file(name).takeIf { it.isFile } else null

    private fun file(name: String): File {
        require(ResultName.isValid(name)) { "'$name' is not the name of a result file" }
        return File(directory, name)
    }
}
