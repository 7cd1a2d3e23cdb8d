import Combine

/// What the headless screen shows: one benchmark, from the app's launch to its end.
@MainActor
final class HeadlessState: ObservableObject {
    /// What it does now, or how it ended.
    @Published private(set) var text = Words.headlessRunning("")

    /// Nil until it has ended.
    @Published private(set) var status: HeadlessStatus?

    private let benchmark: HeadlessBenchmark
    private let arguments: [String]
    private var work: Task<Void, Never>?

    /// A benchmark that has not begun; `arguments` follow the program's name.
    init(_ benchmark: HeadlessBenchmark, arguments: [String]) {
        self.benchmark = benchmark
        self.arguments = arguments
    }

    /// What the app ends with, where it shall end now; nil where it goes on.
    var exitCode: Int32? {
        guard let status, arguments.contains(HeadlessArguments.endFlag) else { return nil }
        return status.state == .passed ? 0 : 1
    }

    /// Begin, unless that was done.
    func start() {
        guard work == nil else { return }
        let (steps, told) = AsyncStream.makeStream(of: BenchmarkStep.self, bufferingPolicy: .bufferingNewest(1))
        let measuring = Task.detached(priority: .userInitiated) { [benchmark, arguments] in
            defer { told.finish() }
            return await benchmark.run(arguments) { step in
                try Task.checkCancellation()
                told.yield(step)
            }
        }
        work = Task {
            await withTaskCancellationHandler {
                for await step in steps { text = Words.headlessRunning(OutcomeText.title(of: step.target)) }
                let status = await measuring.value
                text = status.logLine
                self.status = status
            } onCancel: {
                measuring.cancel()
            }
        }
    }

    /// Cut it off: the app leaves the screen, or memory is short.
    func cancel() {
        work?.cancel()
    }

    /// Waits until it has ended.
    func settled() async {
        await work?.value
    }
}
