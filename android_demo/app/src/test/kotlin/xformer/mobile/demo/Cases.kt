package xformer.mobile.demo

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest

/** One test for each case, named after it. */
fun <T> cases(vararg cases: T, check: (T) -> Unit): List<DynamicTest> = cases.map { dynamicTest("[$it]") { check(it) } }
