package xformer.mobile.demo.model

import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import org.junit.jupiter.api.Test
import xformer.mobile.EngineChoice
import xformer.mobile.EngineOffer
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Format
import xformer.mobile.core.UsageException
import xformer.mobile.demo.benchmark.BenchmarkTarget
import xformer.mobile.demo.benchmark.BenchmarkTargets

/** The menus of the setup screen and the targets of the benchmark, both of what the runtime offers. */
class EngineMenuTest {
    private val offers = listOf(
        offer(EngineChoice.ONNX_RUNTIME, Format.ONNX, Accelerator.CPU),
        offer(EngineChoice.ONNX_RUNTIME, Format.ORT, Accelerator.CPU),
        offer(EngineChoice.ONNX_RUNTIME, Format.ONNX, Accelerator.NNAPI, "no NNAPI"),
        offer(EngineChoice.ONNX_RUNTIME, Format.ORT, Accelerator.NNAPI, "no NNAPI"),
        offer(EngineChoice.LITERT, Format.TFLITE, Accelerator.XNNPACK),
        offer(EngineChoice.LITERT, Format.TFLITE, Accelerator.CPU),
        offer(EngineChoice.LITERT, Format.TFLITE, Accelerator.GPU, "no GPU"),
    )
    private val formats = listOf(Format.ONNX, Format.ORT, Format.TFLITE)
    private val withoutTflite = offers.map { if (it.format == Format.TFLITE) it.copy(problem = "no tflite") else it }

    @Test
    fun `every engine can be chosen, or says why not`() {
        val all = listOf(EngineChoice.AUTO, EngineChoice.ONNX_RUNTIME, EngineChoice.LITERT)
        assertEquals(all.map { MenuEntry(it, null) }, EngineMenu(offers).engines)
        assertEquals(MenuEntry(EngineChoice.LITERT, "no tflite"), EngineMenu(withoutTflite).engines.last())
    }

    @Test
    fun `the accelerators are those of the engine, or of all`() {
        val menu = EngineMenu(offers)
        assertEquals(
            listOf(MenuEntry(null, null), MenuEntry(Accelerator.CPU, null), MenuEntry(Accelerator.NNAPI, "no NNAPI")),
            menu.accelerators(EngineChoice.ONNX_RUNTIME),
        )
        assertEquals(
            listOf(null, Accelerator.CPU, Accelerator.XNNPACK, Accelerator.GPU, Accelerator.NNAPI),
            menu.accelerators(EngineChoice.AUTO).map { it.value },
        )
    }

    @Test
    fun `by default every engine is measured in its own way with all of the bundle's formats`() {
        val expected = listOf(
            BenchmarkTarget(Format.ONNX, EngineChoice.ONNX_RUNTIME, Accelerator.CPU),
            BenchmarkTarget(Format.ORT, EngineChoice.ONNX_RUNTIME, Accelerator.CPU),
            BenchmarkTarget(Format.TFLITE, EngineChoice.LITERT, Accelerator.XNNPACK),
        )
        assertEquals(expected, BenchmarkTargets.choose(offers, formats, null, null))
    }

    @Test
    fun `an engine without a format of the bundle is left out, unless it is asked for`() {
        val onnx = listOf(Format.ONNX, Format.ORT)
        val found = BenchmarkTargets.choose(withoutTflite, onnx, null, null)
        assertEquals(listOf(EngineChoice.ONNX_RUNTIME), found.map { it.engine }.distinct())
        val asked = BenchmarkTargets.choose(withoutTflite, onnx, listOf(EngineChoice.LITERT), null)
        assertEquals("no tflite", asked.single().problem)
    }

    @Test
    fun `what is asked for and not there is a target that says why`() {
        val accelerators = listOf(Accelerator.GPU, Accelerator.CPU)
        val found = BenchmarkTargets.choose(offers, formats, listOf(EngineChoice.LITERT), accelerators)
        assertEquals(listOf("no GPU", null), found.map { it.problem })
    }

    @Test
    fun `an engine that knows none of the accelerators is refused with those that it knows`() {
        val error = assertFailsWith<UsageException> {
            BenchmarkTargets.choose(offers, formats, listOf(EngineChoice.ONNX_RUNTIME), listOf(Accelerator.GPU))
        }
        assertContains(error.message.orEmpty(), "onnxruntime does not run on gpu; valid: cpu, nnapi")
    }

    @Test
    fun `a bundle that no engine runs is refused with its formats`() {
        val error = assertFailsWith<UsageException> {
            BenchmarkTargets.choose(withoutTflite, listOf(Format.COREML), null, null)
        }
        assertContains(error.message.orEmpty(), "coreml")
    }

    private fun offer(engine: EngineChoice, format: Format, accelerator: Accelerator, problem: String? = null) =
        EngineOffer(engine, format, accelerator, problem)
}
