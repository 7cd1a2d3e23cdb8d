package xformer.mobile.demo.model

import kotlin.test.assertEquals
import kotlin.test.assertIs
import kotlin.test.assertTrue
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.launch
import kotlinx.coroutines.test.StandardTestDispatcher
import kotlinx.coroutines.test.TestDispatcher
import kotlinx.coroutines.test.TestScope
import kotlinx.coroutines.test.UnconfinedTestDispatcher
import kotlinx.coroutines.test.runCurrent
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Test

/** A model that is told apart by its key, and counts how often it was closed. */
private class FakeModel(val key: String) : AutoCloseable {
    var closed = 0

    override fun close() {
        closed += 1
    }
}

@OptIn(ExperimentalCoroutinesApi::class)
class ModelSlotTest {
    private val opened = mutableListOf<FakeModel>()
    private val gates = mutableMapOf<String, CompletableDeferred<Unit>>()
    private var refused: Exception? = null

    private fun slot(
        test: TestScope,
        dispatcher: TestDispatcher = UnconfinedTestDispatcher(test.testScheduler),
    ): ModelSlot<String, FakeModel> =
        ModelSlot(dispatcher) { key ->
            gates[key]?.await()
            refused?.let { throw it }
            FakeModel(key).also(opened::add)
        }

    @Test
    fun `a wanted model is opened, and the one before it closed first`() = runTest {
        val slot = slot(this)
        slot.want("a")
        val first = assertIs<SlotState.Ready<String, FakeModel>>(slot.state.value).model
        gates["b"] = CompletableDeferred()
        slot.want("b")
        assertEquals(SlotState.Opening("b"), slot.state.value)
        assertEquals(1, first.closed)
        gates.getValue("b").complete(Unit)
        assertEquals("b", assertIs<SlotState.Ready<String, FakeModel>>(slot.state.value).model.key)
        slot.close()
    }

    @Test
    fun `a model that is wanted twice is opened once`() = runTest {
        val slot = slot(this)
        slot.want("a")
        slot.want("a")
        assertEquals(1, opened.size)
        slot.close()
    }

    @Test
    fun `of those that are wanted while one is opened, only the last is opened, and none stays open`() = runTest {
        val slot = slot(this)
        gates["a"] = CompletableDeferred()
        listOf("a", "b", "c").forEach(slot::want)
        gates.getValue("a").complete(Unit)
        assertEquals(listOf("a", "c"), opened.map { it.key })
        assertEquals(listOf(1, 0), opened.map { it.closed })
        slot.close()
        assertEquals(listOf(1, 1), opened.map { it.closed })
    }

    @Test
    fun `what can't be opened says why, and can be tried again`() = runTest {
        val slot = slot(this)
        refused = IllegalStateException("no room")
        slot.want("a")
        assertEquals("no room", assertIs<SlotState.Failed<String>>(slot.state.value).error.message)
        refused = null
        slot.want("a")
        assertIs<SlotState.Ready<String, FakeModel>>(slot.state.value)
        slot.close()
    }

    @Test
    fun `as soon as a model is wanted, nothing is told of an older wish`() = runTest {
        val slot = slot(this, StandardTestDispatcher(testScheduler))
        slot.want("a")
        assertEquals(SlotState.Opening("a"), slot.state.value)
        runCurrent()
        slot.want("b")
        assertEquals(SlotState.Opening("b"), slot.state.value)
        refused = IllegalStateException("no room")
        runCurrent()
        assertIs<SlotState.Failed<String>>(slot.state.value)
        slot.want("b")
        assertEquals(SlotState.Opening("b"), slot.state.value)
        slot.want(null)
        assertEquals(SlotState.Empty, slot.state.value)
        slot.close()
        runCurrent()
    }

    @Test
    fun `what is opened for an older wish is never told of, and closed`() = runTest {
        val slot = slot(this)
        gates["a"] = CompletableDeferred()
        slot.want("a")
        slot.want(null)
        val told = mutableListOf<SlotState<String, FakeModel>>()
        backgroundScope.launch(UnconfinedTestDispatcher(testScheduler)) { slot.state.collect(told::add) }
        gates.getValue("a").complete(Unit)
        assertEquals<List<Any>>(listOf(SlotState.Empty), told)
        assertEquals(1, opened.single().closed)
        slot.close()
    }

    @Test
    fun `a model that is not wanted for a moment only is kept`() = runTest {
        val slot = slot(this, StandardTestDispatcher(testScheduler))
        slot.want("a")
        runCurrent()
        slot.want(null)
        slot.want("a")
        runCurrent()
        assertEquals(0, opened.single().closed)
        assertIs<SlotState.Ready<String, FakeModel>>(slot.state.value)
        slot.close()
        runCurrent()
        assertEquals(1, opened.single().closed)
    }

    @Test
    fun `nothing wanted is nothing held`() = runTest {
        val slot = slot(this)
        slot.want("a")
        slot.want(null)
        assertEquals(SlotState.Empty, slot.state.value)
        assertEquals(1, opened.single().closed)
        slot.close()
    }

    @Test
    fun `after closing nothing is open, and nothing is opened`() = runTest {
        val slot = slot(this)
        gates["a"] = CompletableDeferred()
        slot.want("a")
        slot.close()
        gates.getValue("a").complete(Unit)
        slot.want("b")
        assertTrue(opened.all { it.closed == 1 })
        assertEquals(listOf("a"), opened.map { it.key })
        assertEquals(SlotState.Empty, slot.state.value)
    }

    @Test
    fun `what is wanted after closing does not keep the model open`() = runTest {
        val slot = slot(this, StandardTestDispatcher(testScheduler))
        slot.want("a")
        runCurrent()
        slot.close()
        slot.want("a")
        runCurrent()
        assertEquals(1, opened.single().closed)
        assertEquals(SlotState.Empty, slot.state.value)
    }
}
