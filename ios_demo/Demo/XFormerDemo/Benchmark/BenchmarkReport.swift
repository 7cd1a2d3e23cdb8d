import XFormerCore
import XFormerCoreML

/// One thing to be measured: the bundle's Core ML artifact on compute units.
struct BenchmarkTarget: Hashable, Sendable {
    /// What Core ML may compute on.
    let units: ComputeUnits

    /// In words for logs and files: "coreml on all".
    var name: String { "\(ArtifactFormat.coreml.rawValue) on \(units.rawValue)" }
}

/// What became of one target.
struct BenchmarkOutcome: Equatable, Sendable {
    let target: BenchmarkTarget

    /// What was really used; nil where it could not be opened.
    var engine: EngineReport?

    /// Nil where the comparison was not finished.
    var parity: ParityResult?

    /// Nil where it was not measured.
    var measurement: LatencyRun.Measurement?

    /// Why one of these is missing; nil where none is.
    var error: String?

    /// Whether it was compared and measured, and computes what it should.
    var passed: Bool { error == nil && parity?.passed == true }
}

/// What became of all targets.
struct BenchmarkReport: Equatable, Sendable {
    let outcomes: [BenchmarkOutcome]

    /// The measurements as one document; nil where nothing was measured.
    let run: LatencyRun?

    var passed: Bool { !outcomes.isEmpty && outcomes.allSatisfy(\.passed) }
}

/// What a benchmark does now.
enum BenchmarkStep: Equatable, Sendable {
    /// Compares with the reference: so many of the golden pictures are done.
    case comparing(BenchmarkTarget, done: Int, total: Int)

    /// Measures.
    case timing(BenchmarkTarget, BenchmarkProgress)

    var target: BenchmarkTarget {
        switch self {
        case .comparing(let target, _, _), .timing(let target, _): target
        }
    }
}

/// How far a benchmark is, 0..1. It never goes back.
struct BenchmarkProgressBar: Sendable {
    private let targets: [BenchmarkTarget]
    private var last = 0.0

    /// Nothing of `targets` is done.
    init(_ targets: [BenchmarkTarget]) {
        self.targets = targets
    }

    /// The share that is done when `step` begins.
    mutating func share(at step: BenchmarkStep) -> Double {
        let (range, done, total) =
            switch step {
            case .comparing(_, let done, let total): (0.0...0.2, done, total)
            case .timing(_, let progress): (Self.range(of: progress.phase), progress.done, progress.total)
            }
        let within = range.lowerBound + (range.upperBound - range.lowerBound) * Double(done) / Double(max(total, 1))
        let place = targets.firstIndex(of: step.target) ?? 0
        last = max(last, (Double(place) + within) / Double(max(targets.count, 1)))
        return last
    }

    /// Where a phase begins and ends within a target.
    private static func range(of phase: BenchmarkPhase) -> ClosedRange<Double> {
        switch phase {
        case .load, .firstRun: 0.2...0.2
        case .warmUp: 0.2...0.3
        case .inference: 0.3...0.9
        case .preprocess: 0.9...0.95
        case .postprocess: 0.95...1
        }
    }
}
