package xformer.mobile.demo.ui

import android.content.res.Resources

/** The app's texts, by their resource ids. An interface, so that what builds sentences runs without Android. */
interface Words {
    /** A text with its places filled in. */
    fun text(id: Int, vararg arguments: Any): String

    /** A text that depends on a number; [count] chooses the form, [arguments] fill its places. */
    fun count(id: Int, count: Int, vararg arguments: Any): String
}

/** The texts of the app's resources, in the user's language. */
class ResourceWords(private val resources: Resources) : Words {
    override fun text(id: Int, vararg arguments: Any): String = resources.getString(id, *arguments)

    override fun count(id: Int, count: Int, vararg arguments: Any): String =
        resources.getQuantityString(id, count, *arguments)
}
