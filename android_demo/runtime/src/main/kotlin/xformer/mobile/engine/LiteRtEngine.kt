package xformer.mobile.engine

import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Delegate
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor as LiteRtTensor
import org.tensorflow.lite.TensorFlowLite
import org.tensorflow.lite.gpu.CompatibilityList
import org.tensorflow.lite.gpu.GpuDelegate
import org.tensorflow.lite.nnapi.NnApiDelegate
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
 * Runs .tflite files in LiteRT's interpreter. The accelerators are its kernels without any delegate
 * ([Accelerator.CPU]), XNNPACK (what LiteRT itself prefers on a CPU), the GPU delegate and NNAPI.
 *
 * Of a delegate it can't be told how many operators it took; those that it doesn't take run on the CPU. The GPU
 * delegate wants to be opened, run and closed by one thread, as `XFormer` does it.
 */
public class LiteRtEngine private constructor(
    private val interpreter: Interpreter,
    private val delegate: Delegate?,
    private val outputs: List<Output>,
    imageSize: ImageSize,
    override val report: EngineReport,
) : Engine {
    private val input = direct(3 * imageSize.height * imageSize.width)
    private val buffers: Map<Int, Any> = outputs.associate { it.index to it.bytes }
    private var isClosed = false

    override fun run(image: RgbImage): Outputs {
        if (isClosed) throw UsageException("the engine is closed; open the bundle again")
        input.restart()
        input.put(image.bytes)
        input.restart()
        try {
            interpreter.runForMultipleInputsOutputs(arrayOf(input), buffers)
        } catch (error: IllegalArgumentException) {
            throw EngineException("LiteRT failed: ${oneLine(error)}", error)
        } catch (error: IllegalStateException) {
            throw EngineException("LiteRT failed: ${oneLine(error)}", error)
        }
        return outputs.associate { it.name to Tensor(it.shape, it.floats()) }
    }

    override fun close() {
        if (isClosed) return
        isClosed = true
        interpreter.close()
        delegate?.close() // after the interpreter, which still uses it
    }

    /**
     * An output and the memory that it is copied to: as float32, or as int8 or uint8 with their scale and zero point.
     */
    internal class Output(val index: Int, tensor: LiteRtTensor) {
        val name: String = tensor.name()
        val shape: IntArray = tensor.shape()
        private val type: DataType = tensor.dataType()
        private val scale = tensor.quantizationParams().scale
        private val zeroPoint = tensor.quantizationParams().zeroPoint

        init {
            val isQuantized = type == DataType.INT8 || type == DataType.UINT8
            if (type != DataType.FLOAT32 && !(isQuantized && scale > 0)) {
                throw BundleException(
                    "LiteRT returns '$name' as $type; float32, or int8 or uint8 with a scale, is needed",
                )
            }
        }

        val bytes: ByteBuffer = direct(tensor.numBytes())

        /** What was copied; the memory is ready for the next copy. */
        fun floats(): FloatArray {
            bytes.restart()
            if (type == DataType.FLOAT32) {
                return FloatArray(bytes.capacity() / Float.SIZE_BYTES).also { bytes.asFloatBuffer().get(it) }
            }
            return FloatArray(bytes.capacity()) { place ->
                val stored = bytes.get(place).toInt()
                scale * ((if (type == DataType.UINT8) stored and 0xFF else stored) - zeroPoint)
            }
        }
    }

    public companion object : EngineProvider {
        private const val IDENTIFIER = "TFL3"

        /** Why an accelerator can't be used here, in one sentence; null where it can, as far as can be told. */
        public fun problem(accelerator: Accelerator): String? = try {
            TensorFlowLite.init()
            if (accelerator == Accelerator.GPU) gpuProblem() else null
        } catch (error: LinkageError) {
            "LiteRT can't be loaded: ${oneLine(error)}"
        }

        private fun gpuProblem(): String? = try {
            CompatibilityList().use { list ->
                if (list.isDelegateSupportedOnThisDevice) null else "LiteRT's GPU delegate does not support this device"
            }
        } catch (error: LinkageError) {
            "LiteRT's GPU delegate can't be loaded: ${oneLine(error)}"
        }

        /**
         * Opens a .tflite file.
         *
         * @throws BundleException LiteRT refuses the file, or it takes no such picture.
         * @throws EngineException LiteRT or the accelerator is not there, or fails.
         * @throws UsageException a format that it does not run, or too many threads.
         */
        override fun open(
            artifact: Artifact,
            imageSize: ImageSize,
            outputShapes: Map<String, IntArray>,
            options: EngineOptions,
        ): Engine {
            EngineKind.LITERT.check(artifact.format, options)
            checkFile(artifact.file)
            problem(options.accelerator)?.let { throw EngineException(it) }
            val delegate = delegate(options.accelerator)
            var interpreter: Interpreter? = null
            try {
                interpreter = interpreter(artifact.file, options, delegate)
                checkInput(interpreter, imageSize)
                val found = List(interpreter.outputTensorCount) { Output(it, interpreter.getOutputTensor(it)) }
                return LiteRtEngine(interpreter, delegate, inOrder(found, outputShapes), imageSize, reportOf(options))
            } catch (error: Throwable) {
                interpreter?.close()
                delegate?.close()
                throw error
            }
        }

        /** In the manifest's order, then what else there is, for the contract to refuse. */
        private fun inOrder(found: List<Output>, outputShapes: Map<String, IntArray>): List<Output> {
            val order = outputShapes.keys.toList()
            return found.sortedBy { output -> order.indexOf(output.name).let { if (it < 0) order.size else it } }
        }

        /** Says plainly what is no model: a damaged file could end the process rather than be refused. */
        private fun checkFile(file: File) {
            val start = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN)
            val size = try {
                RandomAccessFile(file, "r").use { content ->
                    content.read(start.array())
                    content.length()
                }
            } catch (error: IOException) {
                throw BundleException("can't read $file: ${oneLine(error)}", error)
            }
            if (String(start.array(), 4, 4, Charsets.ISO_8859_1) != IDENTIFIER) {
                throw BundleException("LiteRT refuses $file: it is not a .tflite file")
            }
            val root = start.getInt(0).toLong() and 0xFFFFFFFF
            if (root < 8 || root >= size) throw BundleException("LiteRT refuses $file: it is truncated")
        }

        private fun delegate(accelerator: Accelerator): Delegate? = try {
            when (accelerator) {
                Accelerator.GPU -> CompatibilityList().use { GpuDelegate(it.bestOptionsForThisDevice) }
                Accelerator.NNAPI -> NnApiDelegate(NnApiDelegate.Options().setUseNnapiCpu(false))
                else -> null
            }
        } catch (error: LinkageError) {
            throw EngineException("LiteRT can't use ${accelerator.id}: ${oneLine(error)}", error)
        } catch (error: RuntimeException) {
            throw EngineException("LiteRT can't use ${accelerator.id}: ${oneLine(error)}", error)
        }

        private fun interpreter(file: File, options: EngineOptions, delegate: Delegate?): Interpreter {
            val settings = Interpreter.Options().setUseXNNPACK(options.accelerator != Accelerator.CPU)
            options.threads?.let { settings.setNumThreads(it) }
            delegate?.let { settings.addDelegate(it) }
            try {
                val interpreter = Interpreter(file, settings)
                try {
                    interpreter.allocateTensors()
                } catch (error: RuntimeException) {
                    interpreter.close()
                    throw error
                }
                return interpreter
            } catch (error: RuntimeException) {
                val said = oneLine(error)
                if (delegate == null) throw BundleException("LiteRT refuses $file: $said", error)
                throw EngineException(
                    "LiteRT can't run $file on ${options.accelerator.id}: $said; the accelerator xnnpack may run it",
                    error,
                )
            }
        }

        private fun checkInput(interpreter: Interpreter, size: ImageSize) {
            val count = interpreter.inputTensorCount
            if (count != 1) throw BundleException("the model has $count inputs; a picture is one")
            val input = interpreter.getInputTensor(0)
            val shape = intArrayOf(1, size.height, size.width, 3)
            if (input.dataType() != DataType.UINT8 || !input.shape().contentEquals(shape)) {
                throw BundleException(
                    "the model takes ${input.dataType()} ${input.shape().toList()} as '${input.name()}'; " +
                        "the manifest declares UINT8 ${shape.toList()}",
                )
            }
        }

        private fun reportOf(options: EngineOptions): EngineReport {
            val rest = "the others run on the CPU; how many those are can't be told"
            val notes = when (options.accelerator) {
                Accelerator.CPU -> emptyList()
                Accelerator.XNNPACK -> listOf(
                    "XNNPACK takes the operators that it has, LiteRT's kernels the others; how many each took can't be told",
                )
                Accelerator.GPU -> listOf(
                    "the GPU delegate takes the operators that it has; $rest",
                    "the GPU may compute in 16-bit floats",
                )
                Accelerator.NNAPI -> listOf("NNAPI takes the operators that the phone's drivers have; $rest")
            }
            val used = options.accelerator.takeIf { it == Accelerator.CPU }
            return EngineReport(
                EngineKind.LITERT.id,
                TensorFlowLite.runtimeVersion(),
                Format.TFLITE,
                options.threads,
                options.accelerator,
                used,
                notes,
            )
        }

        private fun direct(size: Int): ByteBuffer = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())

        /** ByteBuffer has a rewind() of its own since Java 9, which Android 8 lacks; Buffer's is everywhere. */
        private fun Buffer.restart() {
            rewind()
        }
    }
}
