import Foundation
import XFormerCore

/// What a device tells and does for a benchmark. A protocol, so that the benchmark runs without Core ML.
protocol BenchmarkDevice: Sendable {
    /// The machine that measures.
    ///
    /// - Throws: ``XFormerError/benchmark(_:)`` when the device says of itself what can't be.
    func machine() throws -> LatencyRun.Machine

    /// What the device says of itself meanwhile.
    var probe: any BenchmarkProbe { get }

    /// Reads a golden picture.
    var decode: PictureDecoder { get }

    /// Gets the bundle's Core ML artifact ready, which may take long, and returns what then opens it; that blocks.
    ///
    /// - Throws: ``XFormerError`` when the artifact can't be used.
    func prepare(_ bundle: ModelBundle) async throws -> @Sendable (BenchmarkTarget) throws -> any Engine
}

/// Compares and measures a bundle on several compute units, one after the other. Blocks the thread that it runs on.
struct BenchmarkRunner: Sendable {
    let bundle: ModelBundle
    let device: any BenchmarkDevice

    /// Compares each target with the reference and measures it, `runs` times. One that fails does not keep the others
    /// from being measured.
    ///
    /// - Throws: what `report` throws, which is called often; ``XFormerError`` when nothing can be measured at all.
    func run(
        _ targets: [BenchmarkTarget], runs: Int, report: @Sendable (BenchmarkStep) throws -> Void
    ) async throws -> BenchmarkReport {
        let settings = try BenchmarkSettings(runs: runs)
        let machine = try device.machine()
        let created = Date()
        let open = try await device.prepare(bundle)
        var outcomes: [BenchmarkOutcome] = []
        for target in targets {
            var outcome = BenchmarkOutcome(target: target)
            let compared = try problem { try compare(&outcome, open: open, report: report) }
            // Also where there is nothing to compare with.
            let measured = try problem {
                try measure(&outcome, machine: machine, settings: settings, open: open, report: report)
            }
            let problems = [compared, measured == compared ? nil : measured].compactMap { $0 }
            outcome.error = problems.isEmpty ? nil : problems.joined(separator: "; ")
            outcomes.append(outcome)
        }
        let measurements = outcomes.compactMap(\.measurement)
        let versions = outcomes.compactMap(\.engine).map { ($0.engine, $0.version) }
        let run = LatencyRun(
            created: created, machine: machine, tools: Dictionary(versions) { first, _ in first },
            measurements: measurements)
        return BenchmarkReport(outcomes: outcomes, run: measurements.isEmpty ? nil : run)
    }

    private func compare(
        _ outcome: inout BenchmarkOutcome, open: (BenchmarkTarget) throws -> any Engine,
        report: (BenchmarkStep) throws -> Void
    ) throws {
        let target = outcome.target
        try report(.comparing(target, done: 0, total: bundle.goldenCount))
        let engine = try open(target)
        defer { engine.close() }
        outcome.engine = engine.report
        outcome.parity = try GoldenReplay.run(bundle, format: .coreml, engine: engine, decode: device.decode) {
            try report(.comparing(target, done: $0, total: $1))
        }
    }

    private func measure(
        _ outcome: inout BenchmarkOutcome, machine: LatencyRun.Machine, settings: BenchmarkSettings,
        open: (BenchmarkTarget) throws -> any Engine, report: (BenchmarkStep) throws -> Void
    ) throws {
        let target = outcome.target
        let run = try Benchmark.measure(
            bundle, format: .coreml, machine: machine, settings: settings, probe: device.probe,
            report: { try report(.timing(target, $0)) }, open: { try open(target) })
        outcome.measurement = run.measurements.first
    }

    /// What went wrong, in words; nil where nothing did. That a task was cancelled goes on to who cancelled it.
    private func problem(_ work: () throws -> Void) throws -> String? {
        do {
            try work()
            return nil
        } catch let error as CancellationError {
            throw error
        } catch {
            return error.localizedDescription
        }
    }
}
