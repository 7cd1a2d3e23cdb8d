package xformer.mobile.demo.benchmark

import xformer.mobile.EngineChoice
import xformer.mobile.EngineOffer
import xformer.mobile.core.Accelerator
import xformer.mobile.core.Format
import xformer.mobile.core.UsageException
import xformer.mobile.demo.model.EngineIds

/** What of a bundle is measured, of the ways to run it that the runtime offers. */
object BenchmarkTargets {
    /**
     * Every format of the bundle on the engines and accelerators that are asked for, in that order. One that is not
     * there is a target too, which says why.
     *
     * @param formats those that the bundle has.
     * @param engines null: every one that runs one of [formats].
     * @param accelerators null: the first that each engine offers, its own way on the CPU. An engine that does not know
     *   one of them leaves that one out.
     * @throws UsageException nothing is left, or nothing of an engine that is asked for.
     */
    fun choose(
        offers: List<EngineOffer>,
        formats: List<Format>,
        engines: List<EngineChoice>?,
        accelerators: List<Accelerator>?,
    ): List<BenchmarkTarget> {
        val asked = engines ?: offers.filter { it.format in formats }.map { it.engine }.distinct()
        if (asked.isEmpty()) {
            throw UsageException("no engine here runs the bundle's formats, ${formats.joinToString { it.id }}")
        }
        return asked.flatMap { engine ->
            val known = offers.filter { it.engine == engine }
            val chosen = accelerators ?: known.map { it.accelerator }.take(1)
            val targets = chosen.flatMap { accelerator -> known.filter { it.accelerator == accelerator } }
            if (targets.isEmpty()) {
                throw UsageException(
                    "${EngineIds.idOf(engine)} does not run on ${chosen.joinToString { it.id }}; " +
                        "valid: ${known.map { it.accelerator.id }.distinct().joinToString()}",
                )
            }
            targets.map { BenchmarkTarget(it.format, it.engine, it.accelerator, it.problem) }
        }
    }
}
