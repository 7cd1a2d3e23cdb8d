package xformer.mobile.demo

import android.app.Activity
import android.app.Instrumentation
import android.content.Intent
import android.os.Bundle
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeoutOrNull
import xformer.mobile.demo.benchmark.HeadlessArguments
import xformer.mobile.demo.benchmark.HeadlessPhase
import xformer.mobile.demo.benchmark.HeadlessRuns
import xformer.mobile.demo.benchmark.HeadlessStatus
import xformer.mobile.demo.benchmark.InstrumentationReport

/**
 * The headless benchmark as an instrumentation, which is what device farms run: it starts [HeadlessActivity], waits,
 * and reports each target as a test, in the words that farms know from AndroidJUnitRunner.
 *
 * Arguments are those of [HeadlessArguments]. Farms add others for the runner that they expect; those are told and left
 * out.
 */
open class HeadlessInstrumentation : Instrumentation() {
    private var given = Bundle()

    override fun onCreate(arguments: Bundle?) {
        super.onCreate(arguments)
        given = arguments ?: Bundle()
        start()
    }

    override fun onStart() {
        super.onStart()
        val ignored = given.keySet() - HeadlessArguments.NAMES
        val status = awaitStatus()
        val report = InstrumentationReport(javaClass.name, status, ignored)
        for ((code, values) in report.statuses) sendStatus(code, bundleOf(values))
        // As AndroidJUnitRunner: a test that fails is not a run that fails.
        val code = if (status.state == HeadlessStatus.State.ERROR) Activity.RESULT_CANCELED else Activity.RESULT_OK
        finish(code, bundleOf(report.result))
    }

    private fun awaitStatus(): HeadlessStatus {
        val intent =
            Intent(targetContext, HeadlessActivity::class.java)
                .addFlags(Intent.FLAG_ACTIVITY_NEW_TASK)
                .putExtra(HeadlessActivity.CLOSE, true)
        for (name in HeadlessArguments.NAMES) given.getString(name)?.let { intent.putExtra(name, it) }
        targetContext.startActivity(intent)
        return runBlocking {
            val begun = withTimeoutOrNull(BEGIN_MS) { HeadlessRuns.phase.first { it != HeadlessPhase.Idle } }
            if (begun == null) {
                HeadlessStatus.error("the benchmark's screen did not open; unlock the device and leave it alone")
            } else {
                (HeadlessRuns.phase.first { it is HeadlessPhase.Done } as HeadlessPhase.Done).status
            }
        }
    }

    private fun bundleOf(values: Map<String, Any>): Bundle {
        val bundle = Bundle()
        for ((name, value) in values) {
            if (value is Int) bundle.putInt(name, value) else bundle.putString(name, value.toString())
        }
        return bundle
    }

    private companion object {
        const val BEGIN_MS = 60_000L
    }
}
