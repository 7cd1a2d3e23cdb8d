package xformer.mobile.engine

import java.lang.reflect.Constructor
import java.lang.reflect.Executable
import java.lang.reflect.Method
import java.lang.reflect.Modifier
import java.net.URLClassLoader
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNotEquals
import kotlin.test.assertTrue
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.TensorFlowLite

/** The classes of LiteRT that stand in the tests' tree have nothing that the real ones lack. */
class LiteRtDoublesTest {
    private val real = URLClassLoader(
        arrayOf(DataType::class.java.protectionDomain.codeSource.location),
        ClassLoader.getPlatformClassLoader(),
    )

    @Test
    fun `the real classes are others`() {
        for (double in DOUBLES) {
            assertNotEquals<Class<*>>(double, real.loadClass(double.name))
            assertNotEquals(
                double.protectionDomain.codeSource.location,
                DataType::class.java.protectionDomain.codeSource.location,
            )
        }
    }

    @Test
    fun `every public member of a double is one of the real class`() {
        var checked = 0
        for (double in DOUBLES) {
            val genuine = real.loadClass(double.name)
            val known = members(genuine).map(::signature).toSet()
            for (member in members(double).filter(::isOurs).map(::signature)) {
                assertTrue(member in known, "$member is not in ${genuine.name}")
                checked++
            }
        }
        assertTrue(checked >= 14, "only $checked")
    }

    @Test
    fun `the check sees a member that is not there`() {
        class Stranger {
            @Suppress("unused")
            fun runForMultipleInputsOutputs(inputs: List<Any>, outputs: Map<Int, Any>) = Unit
        }
        val known = members(real.loadClass(Interpreter::class.java.name)).map(::signature).toSet()
        val strange = members(Stranger::class.java).filter(::isOurs).map(::signature).filter { it !in known }
        assertEquals(listOf("runForMultipleInputsOutputs(java.util.List, java.util.Map): void"), strange)
    }

    private fun members(type: Class<*>): List<Executable> = type.constructors.toList() +
        type.methods.filter { it.declaringClass == type || it.declaringClass.name.startsWith("org.tensorflow") }

    /** Not what Kotlin and its tests add by themselves. */
    private fun isOurs(member: Executable): Boolean =
        !member.isSynthetic && '$' !in member.name && Modifier.isPublic(member.modifiers)

    /** Name, parameters and result: what a call names. */
    private fun signature(member: Executable): String {
        val parameters = member.parameterTypes.joinToString { it.name }
        return when (member) {
            is Method -> {
                val static = if (Modifier.isStatic(member.modifiers)) "static " else ""
                "$static${member.name}($parameters): ${member.returnType.name}"
            }
            is Constructor<*> -> "new($parameters)"
        }
    }

    private companion object {
        val DOUBLES = listOf(Interpreter::class.java, Interpreter.Options::class.java, TensorFlowLite::class.java)
    }
}
