package xformer.mobile.demo.ui

import java.io.File
import java.util.Locale
import javax.xml.parsers.DocumentBuilderFactory
import org.w3c.dom.Element
import xformer.mobile.demo.R

/** The texts of res/values/strings.xml, read without Android; a number chooses `one` or `other`, as in English. */
object XmlWords : Words {
    private val root: Element =
        DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(File("src/main/res/values/strings.xml"))
            .documentElement

    private val texts: Map<String, String> = elements(root, "string").associate { it.getAttribute("name") to plain(it) }

    private val plurals: Map<String, Map<String, String>> = elements(root, "plurals").associate { plural ->
        plural.getAttribute("name") to
            elements(plural, "item").associate { it.getAttribute("quantity") to plain(it) }
    }

    private val textNames = names(R.string::class.java)
    private val pluralNames = names(R.plurals::class.java)

    override fun text(id: Int, vararg arguments: Any): String = fill(texts.getValue(textNames.getValue(id)), arguments)

    override fun count(id: Int, count: Int, vararg arguments: Any): String {
        val forms = plurals.getValue(pluralNames.getValue(id))
        return fill(forms.getValue(if (count == 1) "one" else "other"), arguments)
    }

    private fun fill(text: String, arguments: Array<out Any>): String =
        if (arguments.isEmpty()) text else String.format(Locale.ROOT, text, *arguments)

    private fun elements(parent: Element, name: String): List<Element> {
        val found = parent.getElementsByTagName(name)
        return (0 until found.length).map { found.item(it) as Element }
    }

    /** As aapt2 reads it: blanks count between double quotes only. */
    private fun plain(element: Element): String {
        val text = element.textContent.replace("\\n", "\n").replace("\\'", "'")
        val quoted = text.length > 1 && text.startsWith('"') && text.endsWith('"')
        return if (quoted) text.drop(1).dropLast(1) else text.trim(' ')
    }

    private fun names(type: Class<*>): Map<Int, String> = type.fields.associate { it.getInt(null) to it.name }
}
