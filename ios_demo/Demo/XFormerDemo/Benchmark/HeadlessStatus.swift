import Foundation
import XFormerCore

/// How a headless benchmark ended: what its log line and its status file say.
struct HeadlessStatus: Equatable, Sendable {
    /// How it ended.
    enum State: String, Encodable, Sendable {
        /// Every target was measured, and computes what the reference computes.
        case passed

        /// One or more were not measured, or compute something else.
        case failed

        /// Nothing was measured: the arguments or the bundle can't be right, or the benchmark was cut off.
        case error
    }

    /// What scripts look for in the log.
    static let logPrefix = "XFORMER_RESULT:"

    let state: State
    let message: String
    var bundle: String?

    /// The name of the measurements' file; nil where nothing was measured.
    var results: String?

    var outcomes: [BenchmarkOutcome] = []

    /// The status of a benchmark that came to its end.
    init(bundle: String, report: BenchmarkReport, results: String?) {
        let good = report.outcomes.count { $0.passed }
        let place = results.map { "; measurements in \($0)" } ?? ""
        state = report.passed ? .passed : .failed
        message = "\(good) of \(report.outcomes.count) passed\(place)"
        self.bundle = bundle
        self.results = results
        outcomes = report.outcomes
    }

    /// The status of one that came to nothing.
    init(error message: String) {
        state = .error
        self.message = message
    }

    /// One line for the log.
    var logLine: String {
        "\(Self.logPrefix) \(state.rawValue): \(message)".split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }

    /// The status file; numbers that JSON does not have are null.
    func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self) + Data("\n".utf8)
    }
}

extension HeadlessStatus: Encodable {
    private enum CodingKeys: String, CodingKey {
        case status, message, bundle, results, targets
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(state, forKey: .status)
        try container.encode(message, forKey: .message)
        try container.encode(bundle, forKey: .bundle)
        try container.encode(results, forKey: .results)
        try container.encode(outcomes.map(Target.init), forKey: .targets)
    }

    private struct Target: Encodable {
        let format = ArtifactFormat.coreml.rawValue
        let units: String
        let used: String?
        let parity: Parity?
        let inferenceMedianNs: Double?
        let tooNoisy: [String]?
        let thermalState: String?
        let error: String?

        private enum CodingKeys: String, CodingKey {
            case format, units, used, parity, error
            case inferenceMedianNs = "inference_median_ns"
            case tooNoisy = "too_noisy"
            case thermalState = "thermal_state"
        }

        init(_ outcome: BenchmarkOutcome) {
            units = outcome.target.units.rawValue
            used = outcome.engine?.used
            parity = outcome.parity.map(Parity.init)
            inferenceMedianNs = outcome.measurement?.statistics().first { $0.phase == .inference }?.statistics.p50Ns
            tooNoisy = outcome.measurement?.disturbances?.tooNoisy
            thermalState = outcome.measurement?.disturbances?.thermalState
            error = outcome.error
        }
    }

    private struct Parity: Encodable {
        let passed: Bool
        let images: Int
        let outputs: [String: [String: Double?]]
        let agreement: Agreement
        let misses: [String]

        struct Agreement: Encodable {
            let name: String
            let share: Double?
        }

        init(_ parity: ParityResult) {
            passed = parity.passed
            images = parity.images
            outputs = Dictionary(
                parity.outputs.map { output in
                    let figures = [
                        "relative_max": output.relativeMax, "snr_db": output.snrDb, "max_abs": output.maxAbs,
                    ]
                    return (output.name, figures.mapValues { $0.isFinite ? $0 : nil })
                }, uniquingKeysWith: { first, _ in first })
            agreement = Agreement(
                name: parity.agreement.name, share: parity.agreement.share.isFinite ? parity.agreement.share : nil)
            misses = parity.misses
        }
    }
}
