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
    private val wanted = Channel<K?>(Channel.CONFLATED)
    private val states = MutableStateFlow<SlotState<K, M>>(SlotState.Empty)
    private val lock = Any()
    private var last: K? = null

    /** What is held now. A model of an older state may already be closed. */
    val state: StateFlow<SlotState<K, M>> = states.asStateFlow()

    init {
        CoroutineScope(dispatcher).launch {
            for (key in wanted) exchange(key)
            exchange(null)
        }
    }

    /** Have the model of [key], or none; does nothing where that is already so or under way. Never waits. */
    fun want(key: K?) {
        synchronized(lock) {
            val failed = (states.value as? SlotState.Failed)?.key == key
            if (key == last && !failed) return
            last = key
            wanted.trySend(key)
        }
    }

    /** Close the model, and open none any more. Never waits. */
    override fun close() {
        want(null)
        wanted.close()
    }

    private suspend fun exchange(key: K?) {
        val held = (states.value as? SlotState.Ready)?.model
        states.value = if (key == null) SlotState.Empty else SlotState.Opening(key)
        held?.close()
        if (key == null) return
        states.value = try {
            SlotState.Ready(key, open(key))
        } catch (error: CancellationException) {
            throw error
        } catch (error: Exception) {
            SlotState.Failed(key, error)
        } catch (error: OutOfMemoryError) {
            SlotState.Failed(key, IllegalStateException("it does not fit the memory", error))
        }
    }
}
