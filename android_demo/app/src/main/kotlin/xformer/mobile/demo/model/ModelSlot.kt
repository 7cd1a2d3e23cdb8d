package xformer.mobile.demo.model

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.launch

/** What a [ModelSlot] holds. */
sealed interface SlotState<out K, out M> {
    /** No model, and none is wanted. */
    data object Empty : SlotState<Nothing, Nothing>

    /** The model of [key] is being opened. */
    data class Opening<K>(val key: K) : SlotState<K, Nothing>

    /** [model] is open and belongs to the slot, which closes it. */
    data class Ready<K, M>(val key: K, val model: M) : SlotState<K, M>

    /** The model of [key] could not be opened. */
    data class Failed<K>(val key: K, val error: Exception) : SlotState<K, Nothing>
}

/**
 * Holds at most one open model, the one that was wanted last. Models are opened and closed one after the other on
 * [dispatcher], never two at a time: each takes much memory. Thread-safe.
 *
 * @param K says which model.
 * @param open opens a model; blocking is fine.
 */
class ModelSlot<K : Any, M : AutoCloseable>(
    dispatcher: CoroutineDispatcher,
    private val open: suspend (K) -> M,
) : AutoCloseable {
    private val changes = Channel<Unit>(Channel.CONFLATED)
    private val states = MutableStateFlow<SlotState<K, M>>(SlotState.Empty)
    private val lock = Any()
    private var last: K? = null

    // Only used by the coroutine that opens and closes.
    private var held: SlotState.Ready<K, M>? = null

    /**
     * What became of the key that was wanted last: from [want] on, nothing is told of an older one. A model of an older
     * state may already be closed.
     */
    val state: StateFlow<SlotState<K, M>> = states.asStateFlow()

    init {
        CoroutineScope(dispatcher).launch {
            for (change in changes) exchange()
            exchange()
        }
    }

    /** Have the model of [key], or none; does nothing where that is already so or under way. Never waits. */
    fun want(key: K?) {
        synchronized(lock) {
            if (key == last && states.value !is SlotState.Failed) return
            last = key
            // Before this returns: who wants a model and looks shall not find what became of an older wish.
            states.value = if (key == null) SlotState.Empty else SlotState.Opening(key)
            if (changes.trySend(Unit).isSuccess) return
            // It is closed.
            last = null
            states.value = SlotState.Empty
        }
    }

    /** Close the model, and open none any more. Never waits. */
    override fun close() {
        want(null)
        changes.close()
    }

    /** Make so what is wanted now; between the wish and this, another may have come. */
    private suspend fun exchange() {
        val key = synchronized(lock) { last }
        if (held?.key != key) {
            held?.model?.close()
            held = null
        }
        if (key == null || states.value !is SlotState.Opening) return
        val found = held ?: opened(key)
        held = found as? SlotState.Ready<K, M>
        synchronized(lock) {
            // One that is not wanted any more is closed by what comes next.
            if (key == last) states.value = found
        }
    }

    private suspend fun opened(key: K): SlotState<K, M> = try {
        SlotState.Ready(key, open(key))
    } catch (error: CancellationException) {
        throw error
    } catch (error: Exception) {
        SlotState.Failed(key, error)
    } catch (error: OutOfMemoryError) {
        SlotState.Failed(key, IllegalStateException("it does not fit the memory", error))
    }
}
