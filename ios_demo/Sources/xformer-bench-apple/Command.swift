import Foundation
import XFormerCore
import XFormerCoreML

/// The command, with what it writes to.
struct Command {
    /// Given each line, or the document, for standard output.
    var write: (String) -> Void = { FileHandle.standardOutput.write(Data("\($0)\n".utf8)) }

    /// Given each line for standard error.
    var complain: (String) -> Void = { FileHandle.standardError.write(Data("\($0)\n".utf8)) }

    /// Where compiled models are kept.
    var models = CompiledModels()

    /// What is asked about this machine.
    var device = DeviceInfo()

    /// How much is measured, by the runs of the model that are asked for.
    var settings: (Int) throws -> BenchmarkSettings = { try BenchmarkSettings(runs: $0) }

    /// Does what `words`, those behind the command's name, ask for. Returns the exit status.
    func run(_ words: [String]) async -> Int32 {
        let arguments: Arguments
        do {
            guard let read = try Arguments.read(words) else {
                write(Arguments.usage)
                return 0
            }
            arguments = read
        } catch {
            complain("xformer-bench-apple: \(oneLine(error)); --help tells more")
            return 2
        }
        do {
            return try await run(arguments) ? 0 : 1
        } catch {
            complain("xformer-bench-apple: \(oneLine(error))")
            return 1
        }
    }

    /// Whether the model returns what it should, as far as that is asked for.
    private func run(_ arguments: Arguments) async throws -> Bool {
        // With the document on standard output, people read the other one.
        let tell = arguments.json == "-" ? complain : write
        let bundle = try ModelBundle.open(URL(fileURLWithPath: arguments.bundle))
        let engine = try await CoreMLEngine.open(bundle, computeUnits: arguments.computeUnits, models: models)
        defer { engine.close() }
        let model = [bundle.manifest.model.variant, bundle.task.rawValue, bundle.precision, "\(bundle.imageSize)"]
        tell(model.joined(separator: ", ") + " on \(arguments.computeUnits.rawValue), \(engine.report.version)")
        for note in engine.report.notes { tell("note: \(note)") }
        if bundle.isUntrained {
            tell("note: the weights are random: the times are right, the predictions mean nothing")
        }
        if device.isLowPowerModeEnabled { tell("warning: Low Power Mode is on; the times can't be relied on") }
        tell("compute plan: \(await plan(of: engine))")
        let isRight = try !arguments.golden || compare(bundle, engine, tell)
        let run = try measure(bundle, engine.compiled, arguments)
        for line in table(of: run) { tell(line) }
        try save(run, to: arguments.json)
        return isRight
    }

    private func plan(of engine: CoreMLEngine) async -> String {
        do {
            return try await engine.computePlan()?.summary ?? "this system does not tell; iOS 17.4 and macOS 14.4 do"
        } catch {
            return oneLine(error)
        }
    }

    /// Runs the golden inputs; whether every bound is kept.
    private func compare(_ bundle: ModelBundle, _ engine: CoreMLEngine, _ tell: (String) -> Void) throws -> Bool {
        let result = try GoldenReplay.run(bundle, format: .coreml, engine: engine, decode: Pictures.decoder)
        for output in result.outputs {
            let figures = String(
                format: "differs by at most %.2e of its range, SNR %.1f dB", output.relativeMax, output.snrDb)
            tell("golden: \(output.name) \(figures)")
        }
        let share = String(format: "%.2f %%", 100 * result.agreement.share)
        tell("golden: \(result.agreement.name) \(share) on \(result.images) inputs")
        for miss in result.misses { tell("golden: FAILED: \(miss)") }
        return result.passed
    }

    /// Measures the model as it is loaded when it has been compiled: how an app finds it from its second start on.
    private func measure(
        _ bundle: ModelBundle, _ compiled: CompiledModel, _ arguments: Arguments
    ) throws -> LatencyRun {
        try Benchmark.measure(
            bundle, format: .coreml, machine: device.machine(),
            tools: ["coreml": ProcessInfo.processInfo.operatingSystemVersionString],
            settings: settings(arguments.runs), probe: device
        ) {
            try CoreMLEngine(compiled, for: bundle, computeUnits: arguments.computeUnits)
        }
    }

    private func table(of run: LatencyRun) -> [String] {
        let columns = [("median", 10), ("p90", 10), ("p99", 10), ("least", 10), ("runs", 7)]
        let titles = columns.map { padded($0.0, $0.1) }.joined()
        var lines = ["phase, in ms".padding(toLength: 14, withPad: " ", startingAt: 0) + titles]
        for measurement in run.measurements {
            for (phase, figures) in measurement.statistics() {
                let times = [figures.p50Ns, figures.p90Ns, figures.p99Ns, Double(figures.minNs)]
                lines.append(
                    phase.rawValue.padding(toLength: 14, withPad: " ", startingAt: 0)
                        + times.map { padded(String(format: "%.3f", $0 / 1e6), 10) }.joined()
                        + padded("\(figures.count)", 7))
            }
            if let state = measurement.disturbances?.thermalState { lines.append("thermal state, at worst: \(state)") }
            lines += (measurement.disturbances?.tooNoisy ?? []).map { "warning: \($0)" }
        }
        return lines
    }

    private func padded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(width - text.count, 1)) + text
    }

    private func save(_ run: LatencyRun, to file: String?) throws {
        guard let file else { return }
        let document = try run.json()
        if file == "-" {
            write(String(decoding: document.dropLast(), as: UTF8.self))
            return
        }
        do {
            try document.write(to: URL(fileURLWithPath: file), options: .atomic)
        } catch {
            throw XFormerError.benchmark("can't write \(file): \(oneLine(error))")
        }
    }
}
