package xformer.mobile.demo.model

import xformer.mobile.EngineChoice
import xformer.mobile.EngineOffer
import xformer.mobile.core.Accelerator

/** Something that can be chosen, or why it can't: [problem] is null where it can. */
data class MenuEntry<T>(val value: T, val problem: String?)

/** What a bundle can be run with on this device, of the ways that the runtime offers. */
class EngineMenu(private val offers: List<EngineOffer>) {
    /** The engines: first the choice to let the runtime choose. */
    val engines: List<MenuEntry<EngineChoice>>
        get() =
            listOf(entry(EngineChoice.AUTO, offers)) +
                offers.groupBy { it.engine }.map { (engine, of) -> entry(engine, of) }

    /** The accelerators of an engine, or of all: first the engine's own way. */
    fun accelerators(engine: EngineChoice): List<MenuEntry<Accelerator?>> {
        val known = if (engine == EngineChoice.AUTO) offers else offers.filter { it.engine == engine }
        return listOf(entry<Accelerator?>(null, known)) +
            known.groupBy { it.accelerator }.toSortedMap().map { (accelerator, of) -> entry(accelerator, of) }
    }

    /** It can be chosen where one of its ways is open; else the first way's reason is told. */
    private fun <T> entry(value: T, of: List<EngineOffer>): MenuEntry<T> =
        MenuEntry(value, if (of.any { it.isAvailable }) null else of.firstOrNull()?.problem.orEmpty())
}
