package xformer.mobile.engine

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtProvider
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import ai.onnxruntime.providers.NNAPIFlags
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.EnumSet
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Artifact
import xformer.mobile.core.BundleException
import xformer.mobile.core.Engine
import xformer.mobile.core.EngineException
import xformer.mobile.core.EngineOptions
import xformer.mobile.core.EngineProvider
import xformer.mobile.core.EngineReport
import xformer.mobile.core.Format
import xformer.mobile.core.ImageSize
import xformer.mobile.core.Outputs
import xformer.mobile.core.RgbImage
import xformer.mobile.core.Tensor
import xformer.mobile.core.UsageException

/**
 * Runs .onnx and .ort files in ONNX Runtime: on the CPU by its own kernels, or by XNNPACK or NNAPI where the build has
 * them. Its telemetry is switched off before anything else.
 *
 * Of XNNPACK and NNAPI it can't be told how many operators they took; those that they don't take run on the CPU.
 */
public class OnnxRuntimeEngine private constructor(
    private val session: OrtSession,
    private val input: Input,
    override val report: EngineReport,
) : Engine {
    private var isClosed = false

    override fun run(image: RgbImage): Outputs {
        if (isClosed) throw UsageException("the engine is closed; open the bundle again")
        try {
            input.put(image)
            session.run(mapOf(input.name to input.tensor)).use { result ->
                return result.associate { (name, value) -> name to floats(name, value as OnnxTensor) }
            }
        } catch (error: OrtException) {
            throw EngineException("ONNX Runtime failed: ${oneLine(error)}", error)
        }
    }

    private fun floats(name: String, tensor: OnnxTensor): Tensor {
        val values = FloatArray(tensor.info.numElements.toInt())
        val found = tensor.floatBuffer.takeIf { tensor.info.type == OnnxJavaType.FLOAT }
            ?: throw BundleException("ONNX Runtime returned '$name' as ${tensor.info.type}; float32 is needed")
        found.get(values)
        return Tensor(IntArray(tensor.info.shape.size) { tensor.info.shape[it].toInt() }, values)
    }

    override fun close() {
        if (isClosed) return
        isClosed = true
        input.tensor.close()
        session.close()
    }

    /** The model's only input, and the memory that each picture is copied to. */
    private class Input(val name: String, val tensor: OnnxTensor, private val bytes: ByteBuffer) {
        fun put(image: RgbImage) {
            bytes.duplicate().put(image.bytes)
        }

        companion object {
            fun of(session: OrtSession, environment: OrtEnvironment, size: ImageSize): Input {
                val shape = longArrayOf(1, size.height.toLong(), size.width.toLong(), 3)
                val (name, node) = session.inputInfo.entries.singleOrNull()
                    ?: throw BundleException("the model has ${session.inputInfo.size} inputs; a picture is one")
                val info = node.info as? TensorInfo
                if (info == null || info.type != OnnxJavaType.UINT8 || !info.shape.contentEquals(shape)) {
                    throw BundleException(
                        "the model takes ${info?.type} ${info?.shape?.toList()} as '$name'; the manifest declares " +
                            "UINT8 ${shape.toList()}",
                    )
                }
                val bytes = ByteBuffer.allocateDirect(3 * size.height * size.width).order(ByteOrder.nativeOrder())
                return Input(name, OnnxTensor.createTensor(environment, bytes, shape, OnnxJavaType.UINT8), bytes)
            }
        }
    }

    public companion object : EngineProvider {
        private val providers = mapOf(
            Accelerator.CPU to OrtProvider.CPU,
            Accelerator.XNNPACK to OrtProvider.XNNPACK,
            Accelerator.NNAPI to OrtProvider.NNAPI,
        )

        /** Why an accelerator can't be used here, in one sentence; null where it can. */
        public fun problem(accelerator: Accelerator): String? = try {
            environment()
            val available = OrtEnvironment.getAvailableProviders()
            if (providers[accelerator] in available) {
                null
            } else {
                "this build of ONNX Runtime has no ${accelerator.id}; it has " +
                    providers.filterValues { it in available }.keys.joinToString { it.id }
            }
        } catch (error: LinkageError) {
            "ONNX Runtime can't be loaded: ${oneLine(error)}"
        }

        override fun open(
            artifact: Artifact,
            imageSize: ImageSize,
            outputShapes: Map<String, IntArray>,
            options: EngineOptions,
        ): Engine = open(artifact, imageSize, options, unpackWeights = false)

        /**
         * Opens a .onnx or .ort file. [unpackWeights] unpacks int8 weights when the model is loaded, where it would
         * else be done in each run: for models that compute in float (the precision int8-weights).
         *
         * @throws BundleException ONNX Runtime refuses the file, or it takes no such picture.
         * @throws EngineException ONNX Runtime or the accelerator is not there, or fails.
         * @throws UsageException a format that it does not run, or too many threads.
         */
        public fun open(
            artifact: Artifact,
            imageSize: ImageSize,
            options: EngineOptions,
            unpackWeights: Boolean,
        ): OnnxRuntimeEngine {
            EngineKind.ONNX_RUNTIME.check(artifact.format, options)
            problem(options.accelerator)?.let { throw EngineException(it) }
            val environment = environment()
            val session = sessionOptions(artifact.format, options, unpackWeights).use { settings ->
                try {
                    environment.createSession(artifact.file.path, settings)
                } catch (error: OrtException) {
                    throw BundleException("ONNX Runtime refuses ${artifact.file}: ${oneLine(error)}", error)
                }
            }
            try {
                val input = Input.of(session, environment, imageSize)
                val notes = notesOf(options.accelerator, unpackWeights)
                return OnnxRuntimeEngine(session, input, reportOf(environment, artifact.format, options, notes))
            } catch (error: Throwable) {
                session.close()
                throw error
            }
        }

        /** One a process; ONNX Runtime keeps it. */
        private fun environment(): OrtEnvironment {
            val environment = OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR)
            environment.setTelemetry(false)
            return environment
        }

        private fun sessionOptions(
            format: Format,
            options: EngineOptions,
            unpackWeights: Boolean,
        ): OrtSession.SessionOptions {
            val settings = OrtSession.SessionOptions()
            try {
                settings.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR)
                settings.addConfigEntry("session.load_model_format", if (format == Format.ORT) "ORT" else "ONNX")
                if (unpackWeights) settings.addConfigEntry("session.disable_quant_qdq", "1")
                when (options.accelerator) {
                    Accelerator.XNNPACK -> addXnnpack(settings, options.threads)
                    Accelerator.NNAPI -> settings.addNnapi(EnumSet.of(NNAPIFlags.CPU_DISABLED))
                    else -> Unit
                }
                if (options.threads != null) settings.setIntraOpNumThreads(checkNotNull(options.threads))
                return settings
            } catch (error: OrtException) {
                settings.close()
                throw EngineException("ONNX Runtime can't use ${options.accelerator.id}: ${oneLine(error)}", error)
            }
        }

        /** XNNPACK has threads of its own; ONNX Runtime's must not spin meanwhile. */
        private fun addXnnpack(settings: OrtSession.SessionOptions, threads: Int?) {
            settings.addConfigEntry("session.intra_op.allow_spinning", "0")
            val own = if (threads == null) emptyMap() else mapOf("intra_op_num_threads" to threads.toString())
            settings.addXnnpack(own)
        }

        private fun notesOf(accelerator: Accelerator, unpackWeights: Boolean): List<String> {
            val taken = when (accelerator) {
                Accelerator.CPU -> emptyList()
                Accelerator.NNAPI -> listOf(
                    "NNAPI takes the operators that the phone's driver has and ONNX Runtime the others, on the CPU; " +
                        "how many each took can't be told",
                    "NNAPI's own reference implementation on the CPU is left out, from Android 10 on",
                )
                else -> listOf(
                    "XNNPACK takes the operators that it has and ONNX Runtime the others, both on the CPU; " +
                        "how many each took can't be told",
                )
            }
            return if (unpackWeights) taken + "int8 weights are unpacked when the model is loaded" else taken
        }

        private fun reportOf(
            environment: OrtEnvironment,
            format: Format,
            options: EngineOptions,
            notes: List<String>,
        ): EngineReport {
            val used = options.accelerator.takeIf { it == Accelerator.CPU }
            return EngineReport(
                EngineKind.ONNX_RUNTIME.id,
                environment.version,
                format,
                options.threads,
                options.accelerator,
                used,
                notes,
            )
        }
    }
}
