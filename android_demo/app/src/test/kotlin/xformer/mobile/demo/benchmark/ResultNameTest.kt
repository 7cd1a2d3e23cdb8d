package xformer.mobile.demo.benchmark

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import xformer.mobile.demo.cases

class ResultNameTest {
    @TestFactory
    fun `json files are valid`() =
        cases("results.json", "a.json", "2025-01-31.pixel_8.json") { assertTrue(ResultName.isValid(it)) }

    @TestFactory
    fun `what could lead elsewhere, or is no json file, is not`() = cases(
        "",
        "results",
        ".json",
        "..json",
        "../results.json",
        "a/b.json",
        "/sdcard/a.json",
        "a\\b.json",
        "a.json\n",
        ".hidden.json",
        "a.JSON",
        "a.json.sh",
        "a b.json",
        "a_json",
        "a/json",
        "a%2F..%2Fb.json",
        "a\u0000.json",
    ) { assertFalse(ResultName.isValid(it)) }

    @Test
    fun `names end somewhere`() {
        assertTrue(ResultName.isValid("a".repeat(95) + ".json"))
        assertFalse(ResultName.isValid("a".repeat(96) + ".json"))
    }

    @Test
    fun `the status file lies beside the results`() {
        assertEquals("results.status.json", ResultName.status("results.json"))
        assertFailsWith<IllegalArgumentException> { ResultName.status("../results.json") }
    }
}
