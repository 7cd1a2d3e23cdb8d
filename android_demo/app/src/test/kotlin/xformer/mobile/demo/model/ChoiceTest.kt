package xformer.mobile.demo.model

import kotlin.test.assertEquals
import org.junit.jupiter.api.Test
import xformer.mobile.EngineChoice
import xformer.mobile.core.Accelerator

class ChoiceTest {
    @Test
    fun `what is stored is read again`() {
        for (choice in listOf(Choice(), Choice("classify", EngineChoice.LITERT, Accelerator.GPU, 4))) {
            assertEquals(choice, Choice.of(choice.toMap()))
        }
    }

    @Test
    fun `what can't be read is as if it were not there`() {
        val stored = mapOf(
            "bundle" to "../secrets",
            "engine" to "TENSORRT",
            "accelerator" to 7,
            "threads" to "-1",
            "other" to true,
        )
        assertEquals(Choice(), Choice.of(stored))
        assertEquals(Choice(), Choice.of(mapOf("threads" to 4, "bundle" to 4)))
        assertEquals(Choice(), Choice.of(mapOf("threads" to "99999999999999999999")))
    }
}
