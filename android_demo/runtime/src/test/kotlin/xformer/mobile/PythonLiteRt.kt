package xformer.mobile

import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.float
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Tensor

/** A model in LiteRT's Python package: a process of src/test/python/litert_worker.py. */
class PythonLiteRt private constructor(private val process: Process) : AutoCloseable {
    private val source = DataInputStream(process.inputStream.buffered())
    private val target = DataOutputStream(process.outputStream.buffered())

    val inputs: List<Tensor>

    val outputs: List<Tensor>

    init {
        val described = Json.parseToJsonElement(receive().decodeToString()).jsonObject
        described["error"]?.let { throw IllegalArgumentException(it.jsonPrimitive.content) }
        inputs = tensors(described.getValue("inputs").jsonArray)
        outputs = tensors(described.getValue("outputs").jsonArray)
    }

    /** The outputs' bytes for the input's. */
    fun run(input: ByteArray): List<ByteArray> {
        target.writeInt(input.size)
        target.write(input)
        target.flush()
        return outputs.map { receive() }
    }

    private fun receive(): ByteArray = try {
        ByteArray(source.readInt()).also { source.readFully(it) }
    } catch (error: IOException) {
        throw IllegalArgumentException("Python ended with ${process.waitFor()}", error)
    }

    override fun close() {
        target.close()
        source.close()
        process.waitFor()
    }

    private fun tensors(described: JsonArray): List<Tensor> = described.map { StubTensor(it.jsonObject) }

    companion object {
        private const val SCRIPT = "src/test/python/litert_worker.py"

        /** Whether there is a Python to run .tflite files with: the property xformer.python says which. */
        val isConfigured: Boolean get() = System.getProperty("xformer.python") != null

        fun open(file: File, threads: Int, xnnpack: Boolean): PythonLiteRt {
            val python = checkNotNull(System.getProperty("xformer.python")) { "give -Dxformer.python=PYTHON" }
            val script = System.getProperty("xformer.litert-worker") ?: SCRIPT
            val command = listOf(python, script, file.path, threads.toString(), xnnpack.toString())
            val process = ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start()
            try {
                return PythonLiteRt(process)
            } catch (error: Throwable) {
                process.destroy()
                throw error
            }
        }
    }
}

/** A tensor as it is described, without a value. */
class StubTensor(
    private val name: String,
    private val shape: IntArray,
    private val type: DataType,
    private val scale: Float = 0f,
    private val zeroPoint: Int = 0,
) : Tensor {
    constructor(described: JsonObject) : this(
        described.getValue("name").jsonPrimitive.content,
        described.getValue("shape").jsonArray.map { it.jsonPrimitive.int }.toIntArray(),
        DataType.valueOf(described.getValue("type").jsonPrimitive.content.uppercase()),
        described.getValue("scale").jsonPrimitive.float,
        described.getValue("zero_point").jsonPrimitive.int,
    )

    override fun dataType(): DataType = type

    override fun numDimensions(): Int = shape.size

    override fun numBytes(): Int = numElements() * type.byteSize()

    override fun numElements(): Int = shape.fold(1, Int::times)

    override fun shape(): IntArray = shape.copyOf()

    override fun shapeSignature(): IntArray = shape()

    override fun index(): Int = 0

    override fun name(): String = name

    override fun quantizationParams() = Tensor.QuantizationParams(scale, zeroPoint)

    override fun asReadOnlyBuffer(): ByteBuffer = throw UnsupportedOperationException("it has no value")
}
