package xformer.mobile

import ai.onnxruntime.OrtEnvironment
import java.io.File
import java.net.URLClassLoader
import java.util.function.Supplier
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlinx.coroutines.runBlocking
import xformer.mobile.core.Bundle
import xformer.mobile.core.EngineException

/** An app may be built without an engine: that is an error to be shown, and the other engine runs. */
class LeftOutTest {
    @Test
    fun `an engine that the app is built without is offered with the reason, and can't be opened`() {
        val path = System.getProperty("java.class.path").split(File.pathSeparator).map { File(it).toURI().toURL() }
        val left = OrtEnvironment::class.java.protectionDomain.codeSource.location
        val others = (path - left).toTypedArray()
        assertEquals(path.size - 1, others.size)
        URLClassLoader(others, ClassLoader.getPlatformClassLoader()).use { loader ->
            assertFailsWith<ClassNotFoundException> { loader.loadClass(OrtEnvironment::class.java.name) }
            val inside = loader.loadClass(Inside::class.java.name).getDeclaredConstructor().newInstance()
            val (problem, message) = (inside as Supplier<*>).get() as List<*>
            assertContains("$problem", "this app is built without ONNX Runtime: ")
            assertEquals(problem, message)
        }
    }

    /** What is done where ONNX Runtime is not there. */
    class Inside : Supplier<List<String?>> {
        override fun get(): List<String?> = runBlocking {
            val bundle = Bundle.open(File(Fixtures.bundles, "classify-fp32"))
            val offer = XFormer.engines(bundle).first { it.engine == EngineChoice.ONNX_RUNTIME }
            val error = assertFailsWith<EngineException> { XFormer.open(bundle, offer.options()) }
            XFormer.open(bundle, XFormerOptions(EngineChoice.LITERT, threads = 1)).close()
            listOf(offer.problem, error.message)
        }
    }
}
