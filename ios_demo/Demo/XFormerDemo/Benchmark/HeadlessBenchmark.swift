import Foundation
import XFormerCore

/// A benchmark without a user: reads arguments, measures, writes the results and how it ended. Blocks.
struct HeadlessBenchmark: Sendable {
    /// Where the files go.
    let results: ResultStore

    /// Finds and opens the bundle of that name; nil is the first one.
    let open: @Sendable (String?) throws -> (String, ModelBundle)

    let device: any BenchmarkDevice

    /// Takes the line that says how it ended.
    let log: @Sendable (String) -> Void

    /// Does what the arguments ask for, and never ends without a status. `report` is called often, and may throw a
    /// `CancellationError`.
    func run(_ arguments: [String], report: @Sendable (BenchmarkStep) throws -> Void) async -> HeadlessStatus {
        // The status goes where it is looked for, whatever else the arguments are.
        let output = HeadlessArguments.output(of: arguments)
        var status: HeadlessStatus
        do {
            // So that what an older run has left is not taken for this one's.
            try results.delete(output)
            try results.delete(ResultName.status(of: output))
            status = try await measured(HeadlessArguments(arguments), report: report)
        } catch is CancellationError {
            status = HeadlessStatus(error: "the benchmark was cut off: the app left the screen, or memory was short")
        } catch {
            status = HeadlessStatus(error: error.localizedDescription)
        }
        do {
            _ = try results.write(try status.json(), as: ResultName.status(of: output))
        } catch {
            status = HeadlessStatus(
                error: "\(status.message); the status can't be written: \(error.localizedDescription)")
        }
        log(status.logLine)
        return status
    }

    private func measured(
        _ arguments: HeadlessArguments, report: @Sendable (BenchmarkStep) throws -> Void
    ) async throws -> HeadlessStatus {
        let (name, bundle) = try open(arguments.bundle)
        let found = try await BenchmarkRunner(bundle: bundle, device: device).run(
            arguments.units.map(BenchmarkTarget.init), runs: arguments.runs, report: report)
        if let run = found.run { _ = try results.write(try run.json(), as: arguments.output) }
        return HeadlessStatus(bundle: name, report: found, results: found.run == nil ? nil : arguments.output)
    }
}
