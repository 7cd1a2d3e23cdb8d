package org.tensorflow.lite

/** Takes the place of LiteRT's class of this name in tests, as [Interpreter] does. */
object TensorFlowLite {
    @JvmStatic
    fun init() = Unit

    @JvmStatic
    fun runtimeVersion(): String = "python"
}
