package xformer.mobile.demo.benchmark

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import xformer.mobile.EngineChoice
import xformer.mobile.core.Accelerator
import xformer.mobile.core.UsageException
import xformer.mobile.demo.cases

class HeadlessArgumentsTest {
    @Test
    fun `nothing given is the first bundle, as the engines run it by themselves`() {
        assertEquals(HeadlessArguments(null, null, null, null, 200, "results.json"), HeadlessArguments.of(emptyMap()))
    }

    @Test
    fun `an intent's numbers and an instrumentation's words are the same`() {
        val expected = HeadlessArguments(
            "classify",
            listOf(EngineChoice.LITERT, EngineChoice.ONNX_RUNTIME),
            listOf(Accelerator.CPU, Accelerator.GPU),
            threads = 4,
            runs = 200,
            output = "pixel.json",
        )
        val given: Map<String, Any?> = mapOf(
            "bundle" to "classify",
            "engines" to "litert,onnxruntime",
            "accelerators" to "cpu,gpu",
            "threads" to 4,
            "runs" to 200,
            "output" to "pixel.json",
        )
        assertEquals(expected, HeadlessArguments.of(given))
        assertEquals(expected, HeadlessArguments.of(given.mapValues { it.value.toString() }))
    }

    @Test
    fun `lists may be separated by a plus, where a comma means something else`() {
        val arguments = HeadlessArguments.of(mapOf("engines" to "onnxruntime+litert+litert"))
        assertEquals(listOf(EngineChoice.ONNX_RUNTIME, EngineChoice.LITERT), arguments.engines)
    }

    @Test
    fun `a null is not given`() {
        assertEquals(HeadlessArguments(), HeadlessArguments.of(mapOf("threads" to null, "bundle" to null)))
    }

    @TestFactory
    fun `what can't be right is refused with what is valid`() = cases(
        Triple("model", "classify", "unknown argument 'model'"),
        Triple("bundle", "../classify", "bundle '../classify'"),
        Triple("bundle", "", "bundle ''"),
        Triple("engines", "onnx", "engines has 'onnx'"),
        Triple("engines", "", "engines has ''"),
        Triple("engines", "onnxruntime,", "engines has ''"),
        Triple("accelerators", "tpu", "accelerators has 'tpu'"),
        Triple("threads", "0", "threads is '0'; valid: 1 to 64"),
        Triple("threads", "65", "threads is '65'"),
        Triple("threads", "four", "threads is 'four'"),
        Triple("threads", "4.0", "threads is '4.0'"),
        Triple("runs", "9", "runs is '9'; valid: 10 to 100000"),
        Triple("runs", "99999999999999999999", "runs is '99999999999999999999'"),
        Triple("runs", "-200", "runs is '-200'"),
        Triple("output", "/sdcard/a.json", "output '/sdcard/a.json'"),
        Triple("output", "../a.json", "output '../a.json'"),
        Triple("output", "results.txt", "output 'results.txt'"),
    ) { (name, value, said) ->
        val error = assertFailsWith<UsageException> { HeadlessArguments.of(mapOf(name to value)) }
        assertTrue(error.message.orEmpty().startsWith(said), error.message)
    }

    @Test
    fun `a message stays short, whatever was given`() {
        val error = assertFailsWith<UsageException> { HeadlessArguments.of(mapOf("engines" to "x".repeat(100_000))) }
        assertTrue(error.message.orEmpty().length < 200)
    }
}
