package xformer.mobile.demo.benchmark

import xformer.mobile.EngineOffer
import xformer.mobile.Pictures
import xformer.mobile.core.BenchmarkSettings
import xformer.mobile.core.Bundle
import xformer.mobile.demo.Demo

/** The benchmark of a bundle on this device, with its engines. Blocks; everything is done on the caller's thread. */
class DeviceBenchmark(private val demo: Demo, private val bundle: Bundle, private val threads: Int?) {
    /** See [BenchmarkRunner.run]; [runs] of each target are timed. */
    fun run(targets: List<BenchmarkTarget>, runs: Int, report: (BenchmarkStep) -> Unit): BenchmarkReport =
        BenchmarkRunner(
            bundle,
            { artifact, target ->
                EngineOffer(target.engine, target.format, target.accelerator, target.problem)
                    .open(bundle, threads, artifact)
            },
            Pictures.decoder,
            demo.device::machine,
            demo.device,
        ).run(targets, BenchmarkSettings(runs = runs), report)
}
