package xformer.mobile.demo.model

import xformer.mobile.core.EngineReport
import xformer.mobile.demo.R
import xformer.mobile.demo.ui.Words

/** The engine that is really used, in words. */
object EngineText {
    /** Engine and version, format, accelerator and threads on one line; the engine's notes on lines of their own. */
    fun of(report: EngineReport, words: Words): String {
        val name = EngineIds.byId[report.engine]?.let { words.text(EngineIds.text(it)) } ?: report.engine
        val engine = "$name ${report.version}".trim()
        val threads = report.threads
        val line = if (threads == null) {
            words.text(R.string.engine_used, engine, report.format.id, accelerator(report, words))
        } else {
            val counted = words.count(R.plurals.threads, threads, threads)
            words.text(R.string.engine_used_threads, engine, report.format.id, accelerator(report, words), counted)
        }
        return report.notes.fold(line) { text, note -> words.text(R.string.engine_note, text, note) }
    }

    private fun accelerator(report: EngineReport, words: Words): String {
        val requested = words.text(EngineIds.text(report.requested))
        val used = report.used ?: return words.text(R.string.accelerator_unknown, requested)
        if (used == report.requested) return requested
        return words.text(R.string.accelerator_partly, words.text(EngineIds.text(used)), requested)
    }
}
