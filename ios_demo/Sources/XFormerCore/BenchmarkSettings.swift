/// How much is measured.
public struct BenchmarkSettings: Sendable, Equatable {
    /// Runs of the model that count.
    public let runs: Int

    /// Runs of pre- and of postprocessing that count.
    public let phaseRuns: Int

    /// The warm-up has at most so many runs.
    public let maxWarmUps: Int

    /// The warm-up takes at most so long, and a run.
    public let maxWarmUpNs: Int

    /// How much is measured.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when a number is out of range.
    public init(
        runs: Int = 300, phaseRuns: Int = 10, maxWarmUps: Int = 100, maxWarmUpNs: Int = 10_000_000_000
    ) throws {
        let most = 1_000_000
        guard (1...most).contains(runs), (1...most).contains(phaseRuns), (0...most).contains(maxWarmUps),
            maxWarmUpNs >= 0
        else {
            throw XFormerError.usage(
                "\(runs) runs, \(phaseRuns) of a phase, \(maxWarmUps) warm-ups in \(maxWarmUpNs) ns are not valid; "
                    + "runs are from 1 to \(most), warm-ups from 0 on")
        }
        self.runs = runs
        self.phaseRuns = phaseRuns
        self.maxWarmUps = maxWarmUps
        self.maxWarmUpNs = maxWarmUpNs
    }
}

/// What is measured apart.
public enum BenchmarkPhase: String, Sendable, CaseIterable {
    /// Opening the artifact.
    case load

    /// The first run after that.
    case firstRun = "first_run"

    /// Runs of the model that do not count.
    case warmUp = "warm_up"

    /// From a picture to the model's input.
    case preprocess

    /// The model.
    case inference

    /// From the model's outputs to a result.
    case postprocess
}

/// So many runs of a phase are done.
public struct BenchmarkProgress: Sendable, Equatable {
    /// What is measured now.
    public let phase: BenchmarkPhase

    /// Runs that are done.
    public let done: Int

    /// Runs in all; of a warm-up, at most.
    public let total: Int
}
