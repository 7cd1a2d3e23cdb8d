import Combine
import Foundation
import XFormerCore
import XFormerCoreML

/// What the benchmark's screen shows: parity and latency of the chosen bundle on this device.
@MainActor
final class BenchmarkState: ObservableObject {
    /// What is to be measured.
    enum Subject {
        /// The bundle is being opened.
        case opening

        /// There is nothing to measure; the text says why.
        case none(String)

        /// The bundle of that name.
        case ready(name: String, ModelBundle)
    }

    /// How far it is.
    enum Phase {
        /// Nothing yet.
        case idle

        /// The step is nil before the first one; the share 0..1 is done.
        case running(BenchmarkStep?, share: Double)

        /// It came to its end.
        case done(BenchmarkReport)

        /// It was stopped, or could not begin, or broke off; the text says why.
        case stopped(String)
    }

    /// The numbers of runs that can be chosen.
    static let runCounts = [100, 300, 1000]

    /// What is to be measured.
    @Published private(set) var subject = Subject.opening

    /// How far it is.
    @Published private(set) var phase = Phase.idle

    /// The measurements, once there are some, to be shared.
    @Published private(set) var file: URL?

    /// What is chosen to be measured.
    @Published private(set) var units: Set<ComputeUnits> = [.all, .cpuOnly]

    /// Timed runs of each.
    @Published var runs = 300

    private let open: @Sendable () throws -> (String, ModelBundle)
    private let problem: @MainActor (any Error) -> String
    private let device: any BenchmarkDevice
    private let results: ResultStore
    private var work: Task<Void, Never>?
    private var whyCancelled = Words.benchmarkCancelled

    /// The state of a screen on which nothing was measured.
    ///
    /// `open` finds and opens the bundle, which reads files; `problem` says in words why it could not; `results` is
    /// where files lie until they are shared.
    init(
        open: @escaping @Sendable () throws -> (String, ModelBundle),
        problem: @escaping @MainActor (any Error) -> String, device: any BenchmarkDevice, results: ResultStore
    ) {
        self.open = open
        self.problem = problem
        self.device = device
        self.results = results
    }

    /// Whether a benchmark runs.
    var isRunning: Bool {
        if case .running = phase { true } else { false }
    }

    /// Whether a benchmark can begin.
    var canStart: Bool {
        if case .ready = subject { !isRunning } else { false }
    }

    /// The screen is shown: opens the bundle.
    func appear() async {
        let open = open
        do {
            let (name, bundle) = try await Task.detached { try open() }.value
            if bundle.formats.contains(.coreml) {
                subject = .ready(name: name, bundle)
            } else {
                let formats = bundle.formats.map(\.rawValue).joined(separator: Words.separator)
                subject = .none(Words.benchmarkNoFormat(formats))
            }
        } catch {
            subject = .none(problem(error))
        }
    }

    /// Measure on these too, or no longer.
    func toggle(_ units: ComputeUnits) {
        self.units.formSymmetricDifference([units])
    }

    /// Measure what is chosen, unless a benchmark runs.
    func start() {
        guard case .ready(_, let bundle) = subject, !isRunning else { return }
        let targets = ComputeUnits.allCases.filter(units.contains).map(BenchmarkTarget.init)
        if targets.isEmpty {
            phase = .stopped(Words.benchmarkNothing)
            return
        }
        whyCancelled = Words.benchmarkCancelled
        file = nil
        phase = .running(nil, share: 0)
        let runner = BenchmarkRunner(bundle: bundle, device: device)
        let (steps, told) = AsyncStream.makeStream(of: BenchmarkStep.self, bufferingPolicy: .bufferingNewest(1))
        let measuring = Task.detached(priority: .userInitiated) { [runs] in
            defer { told.finish() }
            return try await runner.run(targets, runs: runs) { step in
                try Task.checkCancellation()
                told.yield(step)
            }
        }
        work = Task {
            await withTaskCancellationHandler {
                var bar = BenchmarkProgressBar(targets)
                for await step in steps { phase = .running(step, share: bar.share(at: step)) }
                await finish(measuring.result)
            } onCancel: {
                measuring.cancel()
            }
        }
    }

    /// Stop after the run that is under way; `why` is said of it.
    func cancel(_ why: String = Words.benchmarkCancelled) {
        guard isRunning else { return }
        whyCancelled = why
        work?.cancel()
    }

    /// Waits until nothing is measured.
    func settled() async {
        await work?.value
    }

    private func finish(_ result: Result<BenchmarkReport, any Error>) async {
        switch result {
        case .success(let report):
            phase = .done(report)
            await export(report)
        case .failure(is CancellationError): phase = .stopped(whyCancelled)
        case .failure(let error): phase = .stopped(Words.somethingFailed(error.localizedDescription))
        }
    }

    private func export(_ report: BenchmarkReport) async {
        guard let run = report.run else { return }
        let results = results
        let name = "latency-\(run.created.filter(\.isNumber))\(ResultName.suffix)"
        do {
            file = try await Task.detached { try results.write(try run.json(), as: name) }.value
        } catch {
            phase = .stopped(Words.somethingFailed(error.localizedDescription))
        }
    }
}
