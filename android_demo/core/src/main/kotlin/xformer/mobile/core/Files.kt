package xformer.mobile.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.nio.file.Files
import java.security.MessageDigest

private const val BLOCK = 1 shl 16

/** The first [limit] bytes, or all where there are fewer. */
internal fun InputStream.readAtMost(limit: Int): ByteArray {
    val content = ByteArrayOutputStream()
    val block = ByteArray(BLOCK)
    while (content.size() < limit) {
        val count = read(block, 0, minOf(block.size, limit - content.size()))
        if (count < 0) break
        content.write(block, 0, count)
    }
    return content.toByteArray()
}

/** Calls [take] with a block of bytes, of which the first so many count, until the end. */
internal inline fun InputStream.forEachBlock(take: (block: ByteArray, count: Int) -> Unit) {
    val block = ByteArray(BLOCK)
    while (true) {
        val count = read(block)
        if (count < 0) return
        take(block, count)
    }
}

internal fun sha256(content: ByteArray): String = hex(MessageDigest.getInstance("SHA-256").digest(content))

internal fun fileSha256(file: File): String {
    val digest = MessageDigest.getInstance("SHA-256")
    file.inputStream().use { it.forEachBlock { block, count -> digest.update(block, 0, count) } }
    return hex(digest.digest())
}

/**
 * The SHA-256 of the lines "SHA256  PATH" of a directory's files, in the order of their relative paths' bytes.
 *
 * @throws IOException there is a symbolic link in it: it could lead out of the directory, or back into it.
 */
internal fun treeSha256(directory: File): String {
    val files = filesBelow(directory).associateBy { it.relativeTo(directory).invariantSeparatorsPath }
    val lines = files.keys.sortedWith(byBytes).joinToString("") { "${fileSha256(files.getValue(it))}  $it\n" }
    return sha256(lines.encodeToByteArray())
}

private fun filesBelow(directory: File): List<File> = directory.listFiles().orEmpty().flatMap { file ->
    when {
        Files.isSymbolicLink(file.toPath()) -> throw IOException("$file is a symbolic link")
        file.isDirectory -> filesBelow(file)
        else -> listOf(file)
    }
}

private val byBytes = Comparator<String> { a, b ->
    val first = a.encodeToByteArray()
    val second = b.encodeToByteArray()
    val differing = (0 until minOf(first.size, second.size)).find { first[it] != second[it] }
    if (differing == null) first.size - second.size else unsigned(first[differing]) - unsigned(second[differing])
}

/** Deletes a file or a directory with all that is in it, but nothing that a symbolic link leads to. */
internal fun deleteTree(file: File) {
    if (!Files.isSymbolicLink(file.toPath())) file.listFiles()?.forEach(::deleteTree)
    file.delete()
}

private fun unsigned(byte: Byte): Int = byte.toInt() and 0xff

private fun hex(bytes: ByteArray): String {
    val digits = "0123456789abcdef"
    return buildString(2 * bytes.size) {
        for (byte in bytes) {
            append(digits[byte.toInt() shr 4 and 0xf])
            append(digits[byte.toInt() and 0xf])
        }
    }
}
