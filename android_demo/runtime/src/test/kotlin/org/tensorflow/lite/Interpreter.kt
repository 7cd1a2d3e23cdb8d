package org.tensorflow.lite

import java.io.File
import java.nio.ByteBuffer
import xformer.mobile.PythonLiteRt

/**
 * Takes the place of LiteRT's class of this name in tests: there are natives of it for Android only. It has the part
 * that LiteRtEngine uses, and runs the model in LiteRT's Python package. LiteRtDoublesTest holds it to the real class.
 */
class Interpreter(file: File, options: Options) : AutoCloseable {
    class Options : InterpreterApi.Options() {
        override fun setNumThreads(numThreads: Int): Options = apply { super.setNumThreads(numThreads) }

        override fun setUseXNNPACK(useXNNPACK: Boolean): Options = apply { super.setUseXNNPACK(useXNNPACK) }

        override fun addDelegate(delegate: Delegate): Options = apply { super.addDelegate(delegate) }
    }

    private val python: PythonLiteRt

    init {
        // A delegate's native code would be asked for here.
        options.delegates.forEach { it.nativeHandle }
        python = PythonLiteRt.open(file, options.numThreads, options.useXNNPACK)
        opened = opened + this
    }

    /** How often it was closed. */
    private var closings = 0

    fun allocateTensors() = Unit

    fun getInputTensorCount(): Int = python.inputs.size

    fun getInputTensor(inputIndex: Int): Tensor = python.inputs[inputIndex]

    fun getOutputTensorCount(): Int = python.outputs.size

    fun getOutputTensor(outputIndex: Int): Tensor = python.outputs[outputIndex]

    fun runForMultipleInputsOutputs(inputs: Array<Any>, outputs: Map<Int, Any>) {
        val content = inputs.single() as ByteBuffer
        require(content.isDirect) { "a buffer that is not direct is copied again" }
        require(content.remaining() == python.inputs[0].numBytes()) { "the buffer has ${content.remaining()} bytes" }
        val bytes = ByteArray(content.remaining())
        content.get(bytes)
        python.run(bytes).forEachIndexed { index, result -> (outputs.getValue(index) as ByteBuffer).put(result) }
    }

    override fun close() {
        closings++
        if (closings == 1) python.close()
    }

    companion object {
        /** For tests. */
        private var opened = emptyList<Interpreter>()

        /** How often each of those opened since [forget] was closed. */
        internal fun closings(): List<Int> = opened.map { it.closings }

        internal fun forget() {
            opened = emptyList()
        }
    }
}
