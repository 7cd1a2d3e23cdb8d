package xformer.mobile.demo

import java.io.File
import javax.xml.parsers.DocumentBuilderFactory
import kotlin.math.pow
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.Test
import org.w3c.dom.Element
import org.w3c.dom.Node

/** What people who see, hear or touch differently need of layouts and colors, and what the manifest may not have. */
class ResourcesTest {
    private val main = File("src/main")
    private val layouts =
        main.resolve("res").walk().filter { it.isFile && it.parentFile.name.startsWith("layout") }.toList()

    @Test
    fun `texts in layouts are resources`() {
        for ((file, view) in views()) {
            for (name in listOf("text", "contentDescription", "hint")) {
                val value = view.getAttributeNS(ANDROID, name)
                assertTrue(value.isEmpty() || value.startsWith("@string/"), "${file.name}: $value")
            }
        }
    }

    @Test
    fun `pictures are described, or said to need no description`() {
        for ((file, view) in views()) {
            if (view.tagName !in setOf("ImageView", "ImageButton", "ProgressBar")) continue
            val described = view.hasAttributeNS(ANDROID, "contentDescription")
            val ignored = view.getAttributeNS(ANDROID, "importantForAccessibility") == "no"
            assertTrue(described || ignored, "${file.name}: ${view.getAttributeNS(ANDROID, "id")}")
        }
    }

    @Test
    fun `buttons are large enough to touch`() {
        for ((file, view) in views()) {
            if (view.tagName != "Button") continue
            val id = view.getAttributeNS(ANDROID, "id")
            assertEquals("@style/Action", view.getAttribute("style"), "${file.name}: $id")
        }
        val touch = values("dimens", "dimen").getValue("touch")
        for (style in listOf("Action", "Choice")) assertEquals("@dimen/touch", item(style, "minHeight"))
        assertTrue(touch.removeSuffix("dp").toInt() >= 48, touch)
    }

    @Test
    fun `text grows with the user's setting`() {
        val sizes = values("dimens", "dimen").filterKeys { it.startsWith("text_") }.values
        assertTrue(sizes.isNotEmpty())
        for (size in sizes) assertTrue(size.endsWith("sp") && size.removeSuffix("sp").toInt() >= 14, size)
        for ((file, view) in views()) {
            assertFalse(view.hasAttributeNS(ANDROID, "textSize"), "${file.name} sets a text size beside the styles")
            assertFalse(view.hasAttributeNS(ANDROID, "maxLines"), "${file.name} cuts text off")
        }
    }

    @Test
    fun `nothing is left or right, where a language may begin on either side`() {
        for ((file, view) in views()) {
            val names = (0 until view.attributes.length).map { view.attributes.item(it).nodeName }
            assertTrue(names.none { it.endsWith("Left") || it.endsWith("Right") }, "${file.name}: $names")
        }
    }

    @Test
    fun `both forms of a screen have the same views`() {
        for (portrait in layouts.filter { it.parentFile.name == "layout" }) {
            val landscape = portrait.parentFile.resolveSibling("layout-land").resolve(portrait.name)
            if (landscape.exists()) assertEquals(ids(portrait), ids(landscape), portrait.name)
        }
    }

    @Test
    fun `what is read stands out from what is behind it, by day and by night`() {
        val day = values("colors", "color")
        for (colors in listOf(day, day + values("colors", "color", "values-night"))) {
            for ((text, behind) in READ) {
                val contrast = contrast(colors.getValue(text), colors.getValue(behind))
                assertTrue(contrast >= 4.5, "$text on $behind: $contrast")
            }
        }
    }

    @Test
    fun `the app asks for the camera and nothing else, and works without one`() {
        val manifest = parse(main.resolve("AndroidManifest.xml"))
        assertEquals(listOf("android.permission.CAMERA"), names(manifest, "uses-permission"))
        val features = elements(manifest, "uses-feature")
        assertTrue(features.isNotEmpty() && features.all { it.getAttributeNS(ANDROID, "required") == "false" })
    }

    @Test
    fun `only the launcher and the device farms' entry are open to other apps`() {
        val manifest = parse(main.resolve("AndroidManifest.xml"))
        val components = listOf("activity", "provider", "service", "receiver").flatMap { elements(manifest, it) }
        val open = components.filter { it.getAttributeNS(ANDROID, "exported") != "false" }
        assertEquals(listOf(".MainActivity", ".HeadlessActivity"), open.map { it.getAttributeNS(ANDROID, "name") })
        assertEquals("false", elements(manifest, "application").single().getAttributeNS(ANDROID, "allowBackup"))
    }

    @Test
    fun `every class of the manifest exists`() {
        val manifest = parse(main.resolve("AndroidManifest.xml"))
        for (tag in listOf("activity", "provider", "instrumentation")) {
            for (name in names(manifest, tag)) {
                assertTrue(main.resolve("kotlin/xformer/mobile/demo${name.replace('.', '/')}.kt").isFile, name)
            }
        }
    }

    @Test
    fun `the test APK has the instrumentation that its manifest will name`() {
        val named = Regex("testInstrumentationRunner = \"(.*)\"").find(File("build.gradle.kts").readText())
        val runner = checkNotNull(named).groupValues[1]
        val source = File("src/androidTest/kotlin/${runner.replace('.', '/')}.kt")
        assertTrue("class ${runner.substringAfterLast('.')} : HeadlessInstrumentation()" in source.readText(), runner)
    }

    @Test
    fun `every text is used`() {
        val used = main.walk().filter { it.extension in setOf("kt", "xml") }.joinToString("\n") { it.readText() }
        val names = (values("strings", "string") + values("strings", "plurals")).keys
        val unused = names.filter { Regex("(R\\.(string|plurals)\\.|@string/)$it\\b").find(used) == null }
        assertEquals(emptyList(), unused)
    }

    @Test
    fun `no text is left empty`() {
        assertNull(values("strings", "string").entries.find { it.value.isBlank() })
    }

    private fun views(): List<Pair<File, Element>> =
        layouts.flatMap { file -> parse(file).let { root -> (elements(root, "*") + root).map { file to it } } }

    private fun ids(layout: File): Set<String> {
        val root = parse(layout)
        val own = (elements(root, "*") + root).map { it.getAttributeNS(ANDROID, "id") }.filter { it.isNotEmpty() }
        return own.toSet() + elements(root, "include").map { it.getAttribute("layout") }
    }

    private fun item(style: String, name: String): String? {
        val styles = elements(parse(main.resolve("res/values/styles.xml")), "style")
        return elements(styles.single { it.getAttribute("name") == style }, "item")
            .find { it.getAttribute("name") == "android:$name" }?.textContent
    }

    private fun values(file: String, tag: String, folder: String = "values"): Map<String, String> {
        val found = elements(parse(main.resolve("res/$folder/$file.xml")), tag)
        return found.associate { it.getAttribute("name") to it.textContent }
    }

    private fun names(parent: Element, tag: String): List<String> =
        elements(parent, tag).map { it.getAttributeNS(ANDROID, "name") }

    private fun parse(file: File): Element {
        val factory = DocumentBuilderFactory.newInstance().apply { isNamespaceAware = true }
        return factory.newDocumentBuilder().parse(file).documentElement
    }

    private fun elements(parent: Element, tag: String): List<Element> {
        val found = parent.getElementsByTagName(tag)
        return (0 until found.length).map(found::item).filter { it.nodeType == Node.ELEMENT_NODE }.map { it as Element }
    }

    /** WCAG 2.1: (lighter + 0.05) / (darker + 0.05), of relative luminances. */
    private fun contrast(one: String, other: String): Double {
        val (dark, light) = listOf(luminance(one), luminance(other)).sorted()
        return (light + 0.05) / (dark + 0.05)
    }

    private fun luminance(color: String): Double {
        val channels = color.removePrefix("#").takeLast(6).chunked(2).map { hex ->
            val value = hex.toInt(16) / 255.0
            if (value <= 0.04045) value / 12.92 else ((value + 0.055) / 1.055).pow(2.4)
        }
        return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]
    }

    private companion object {
        const val ANDROID = "http://schemas.android.com/apk/res/android"

        /** What is written on what. */
        val READ = listOf(
            "text" to "screen",
            "text_soft" to "screen",
            "on_accent" to "accent",
            "accent" to "screen",
            "on_warning" to "warning",
            "on_stage" to "stage",
            "on_label" to "label",
            "good" to "screen",
            "bad" to "screen",
        )
    }
}
