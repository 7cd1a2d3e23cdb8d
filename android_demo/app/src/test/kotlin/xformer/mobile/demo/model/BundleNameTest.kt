package xformer.mobile.demo.model

import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import xformer.mobile.demo.cases

class BundleNameTest {
    @TestFactory
    fun `names of folders are valid`() =
        cases("classify", "xformer_s-int8", "a", "9.1", "A.b_c-d") { assertTrue(BundleName.isValid(it)) }

    @TestFactory
    fun `what could lead elsewhere is not`() =
        cases("", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-rf", "a b", "ä", "a\u0000", "a\n") {
            assertFalse(BundleName.isValid(it))
        }

    @Test
    fun `names end somewhere`() {
        assertTrue(BundleName.isValid("a".repeat(64)))
        assertFalse(BundleName.isValid("a".repeat(65)))
    }

    @TestFactory
    fun `a file's name becomes a valid one`() = cases(
        "classify.zip" to "classify",
        "CLASSIFY.ZIP" to "CLASSIFY",
        "My model (2).zip" to "My-model--2-",
        "../../etc/passwd" to "passwd",
        "..zip" to "bundle",
        "...." to "bundle",
        "" to "bundle",
        "модель.zip" to "bundle",
        "-rf.zip" to "rf",
    ) { (file, expected) ->
        assertEquals(expected, BundleName.of(file, emptySet()))
        assertTrue(BundleName.isValid(expected))
    }

    @Test
    fun `a name that is taken gets a number`() {
        assertEquals("a-3", BundleName.of("a.zip", setOf("a", "a-2")))
    }

    @Test
    fun `a long name stays valid with a number`() {
        val taken = setOf(BundleName.of("a".repeat(300), emptySet()))
        assertTrue(BundleName.isValid(BundleName.of("a".repeat(300), taken)))
    }
}
