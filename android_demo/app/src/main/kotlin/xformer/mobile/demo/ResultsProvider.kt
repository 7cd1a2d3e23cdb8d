package xformer.mobile.demo

import android.content.ContentProvider
import android.content.ContentValues
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.OpenableColumns
import java.io.File
import java.io.FileNotFoundException
import xformer.mobile.demo.benchmark.ResultStore

/**
 * Lets another app read the one result file that the user shares with it: `content://AUTHORITY/NAME.json`.
 *
 * It is not exported, so that only who is granted a file can ask for it; it only reads, and only files of one folder.
 */
class ResultsProvider : ContentProvider() {
    override fun onCreate(): Boolean = true

    override fun getType(uri: Uri): String = TYPE

    override fun query(
        uri: Uri,
        projection: Array<out String>?,
        selection: String?,
        arguments: Array<out String>?,
        order: String?,
    ): Cursor {
        val columns = projection?.filter { it in COLUMNS } ?: COLUMNS
        val cursor = MatrixCursor(columns.toTypedArray(), 1)
        val file = find(uri) ?: return cursor
        cursor.addRow(columns.map { if (it == OpenableColumns.SIZE) file.length() else file.name })
        return cursor
    }

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        if (mode != "r") throw FileNotFoundException("results can be read only; got the mode '$mode'")
        val file = find(uri) ?: throw FileNotFoundException("there are no results at $uri")
        return ParcelFileDescriptor.open(file, ParcelFileDescriptor.MODE_READ_ONLY)
    }

    override fun insert(uri: Uri, values: ContentValues?): Uri = refuse()

    override fun update(uri: Uri, values: ContentValues?, selection: String?, arguments: Array<out String>?): Int =
        refuse()

    override fun delete(uri: Uri, selection: String?, arguments: Array<out String>?): Int = refuse()

    /** The path has one part; that it is a file's plain name is checked before anything is done with it. */
    private fun find(uri: Uri): File? {
        val name = uri.pathSegments.singleOrNull() ?: return null
        val app = context ?: return null
        return ResultStore(Demo.resultsDirectory(app)).find(name)
    }

    private fun refuse(): Nothing = throw UnsupportedOperationException("results can be read only")

    companion object {
        /** The type of every file. */
        const val TYPE = "application/json"

        private const val AUTHORITY = "xformer.mobile.demo.results"
        private val COLUMNS = listOf(OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE)

        /** The address of a result file. */
        fun uriOf(file: File): Uri = Uri.Builder().scheme("content").authority(AUTHORITY).appendPath(file.name).build()
    }
}
