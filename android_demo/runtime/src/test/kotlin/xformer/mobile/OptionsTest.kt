package xformer.mobile

import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import xformer.mobile.core.Accelerator.CPU
import xformer.mobile.core.Accelerator.GPU
import xformer.mobile.core.Accelerator.NNAPI
import xformer.mobile.core.Accelerator.XNNPACK
import xformer.mobile.core.Artifact
import xformer.mobile.core.BundleException
import xformer.mobile.core.EngineException
import xformer.mobile.core.Format
import xformer.mobile.core.Format.COREML
import xformer.mobile.core.Format.EXECUTORCH
import xformer.mobile.core.Format.ONNX
import xformer.mobile.core.Format.ORT
import xformer.mobile.core.Format.TFLITE
import xformer.mobile.core.UsageException
import xformer.mobile.core.XFormerException
import xformer.mobile.engine.EngineKind

class OptionsTest {
    private val all = listOf(TFLITE, ORT, COREML, ONNX)

    @Test
    fun `the engine, its format and its accelerator follow from the options`() {
        val rows = listOf(
            Triple(all, XFormerOptions(), Plan(EngineKind.ONNX_RUNTIME, ONNX, CPU)),
            Triple(listOf(TFLITE, ORT), XFormerOptions(), Plan(EngineKind.ONNX_RUNTIME, ORT, CPU)),
            Triple(listOf(COREML, TFLITE), XFormerOptions(), Plan(EngineKind.LITERT, TFLITE, XNNPACK)),
            Triple(all, XFormerOptions(accelerator = NNAPI), Plan(EngineKind.ONNX_RUNTIME, ONNX, NNAPI)),
            Triple(all, XFormerOptions(accelerator = GPU), Plan(EngineKind.LITERT, TFLITE, GPU)),
            Triple(all, XFormerOptions(format = ORT), Plan(EngineKind.ONNX_RUNTIME, ORT, CPU)),
            Triple(all, XFormerOptions(format = TFLITE), Plan(EngineKind.LITERT, TFLITE, XNNPACK)),
            Triple(all, XFormerOptions(EngineChoice.LITERT), Plan(EngineKind.LITERT, TFLITE, XNNPACK)),
            Triple(all, XFormerOptions(EngineChoice.LITERT, accelerator = CPU), Plan(EngineKind.LITERT, TFLITE, CPU)),
            Triple(
                all,
                XFormerOptions(EngineChoice.ONNX_RUNTIME, accelerator = XNNPACK),
                Plan(EngineKind.ONNX_RUNTIME, ONNX, XNNPACK),
            ),
        )
        for ((formats, options, expected) in rows) assertEquals(expected, plan(formats, options), "$formats, $options")
    }

    @Test
    fun `what no engine runs is refused, with what there is`() {
        fun said(formats: List<Format>, options: XFormerOptions) =
            assertFailsWith<UsageException> { plan(formats, options) }.message
        assertEquals(
            "the bundle can't be run with ONNX Runtime, the accelerator gpu: ONNX Runtime runs onnx on cpu, xnnpack, " +
                "nnapi",
            said(listOf(ONNX), XFormerOptions(EngineChoice.ONNX_RUNTIME, accelerator = GPU)),
        )
        assertEquals(
            "the bundle can't be run with LiteRT: ONNX Runtime runs onnx on cpu, xnnpack, nnapi",
            said(listOf(ONNX), XFormerOptions(EngineChoice.LITERT)),
        )
        assertEquals(
            "the bundle can't be run with ONNX Runtime or LiteRT: no engine here runs its formats, coreml, executorch",
            said(listOf(COREML, EXECUTORCH), XFormerOptions()),
        )
        assertEquals(
            "the bundle can't be run with ONNX Runtime or LiteRT, the format tflite: ONNX Runtime runs onnx on cpu, " +
                "xnnpack, nnapi",
            said(listOf(ONNX), XFormerOptions(format = TFLITE)),
        )
        // AUTO does not run another format for an accelerator than the one that is asked for.
        assertTrue(said(all, XFormerOptions(format = ONNX, accelerator = GPU)).orEmpty().startsWith("the bundle can't"))
    }

    @Test
    fun `offers are every engine, format of the bundle and accelerator`() {
        val asked = mutableListOf<String>()
        val offers = offers(listOf(ONNX, ORT)) { kind, accelerator ->
            asked += "${kind.id} ${accelerator.id}"
            if (accelerator == NNAPI) "no driver" else null
        }
        assertEquals(listOf("onnxruntime cpu", "onnxruntime xnnpack", "onnxruntime nnapi"), asked)
        assertEquals(6 + 4, offers.size)
        assertEquals(
            listOf(ONNX, ORT).map { EngineOffer(EngineChoice.ONNX_RUNTIME, it, NNAPI, "no driver") },
            offers.filter { it.accelerator == NNAPI && it.engine == EngineChoice.ONNX_RUNTIME },
        )
        val litert = offers.filter { it.engine == EngineChoice.LITERT }
        assertEquals(listOf(XNNPACK, CPU, GPU, NNAPI), litert.map { it.accelerator })
        val missing = "the bundle has no tflite; export it with --format tflite"
        assertEquals(setOf<String?>(missing), litert.map { it.problem }.toSet())
        assertEquals(4, offers.count { it.isAvailable })
    }

    @Test
    fun `an offer's options lead to that offer`() {
        for (offer in offers(all) { _, _ -> null }) {
            val plan = plan(all, offer.options())
            assertEquals(offer.engine.kind, plan.kind)
            assertEquals(offer.format to offer.accelerator, plan.format to plan.accelerator)
        }
    }

    @Test
    fun `what an engine's library throws is told in this library's terms`() {
        val artifact = Artifact(TFLITE, File("model.tflite"), "", 1)
        val rows = listOf(
            UsageException("as it is") to UsageException("as it is"),
            NoClassDefFoundError("org/tensorflow") to
                EngineException("this app is built without LiteRT: org/tensorflow"),
            IllegalArgumentException("DataType 17\nis not recognized") to
                BundleException("LiteRT refuses model.tflite: DataType 17 is not recognized"),
        )
        for ((thrown, expected) in rows) {
            val found = assertFailsWith<XFormerException> { EngineKind.LITERT.opening(artifact) { throw thrown } }
            assertEquals(expected.javaClass to expected.message, found.javaClass to found.message)
        }
    }

    @Test
    fun `an engine refuses an accelerator that it does not know`() {
        val problem = EngineKind.ONNX_RUNTIME.problem(GPU)
        assertEquals("ONNX Runtime does not run on gpu; it runs on cpu, xnnpack, nnapi", problem)
    }
}
