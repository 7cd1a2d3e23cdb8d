import Foundation

@testable import XFormerCore

/// An engine that computes with a closure, and sees to it that nobody runs it twice at once or after its end.
final class FakeEngine: Engine, @unchecked Sendable {
    let report: EngineReport
    private let compute: (RgbImage) throws -> Outputs
    private let lock = NSLock()
    private var running = 0
    private var closes = 0
    private var problems: [String] = []

    init(
        report: EngineReport = EngineReport(
            engine: "fake", version: "1", format: .onnx, requested: "cpu", used: "cpu", threads: 2),
        compute: @escaping (RgbImage) throws -> Outputs
    ) {
        self.report = report
        self.compute = compute
    }

    /// How often it was closed.
    var closed: Int { lock.withLock { closes } }

    /// What was called when it should not have been.
    var misuse: [String] { lock.withLock { problems } }

    func run(_ image: RgbImage) throws -> Outputs {
        lock.withLock {
            if running > 0 { problems.append("two runs at once") }
            if closes > 0 { problems.append("a run after the end") }
            running += 1
        }
        defer { lock.withLock { running -= 1 } }
        return try compute(image)
    }

    func close() {
        lock.withLock {
            if running > 0 { problems.append("closed during a run") }
            closes += 1
        }
    }
}

/// The mean of each channel as logits: cat is red, dog is green, cup is blue.
func meanColor(_ image: RgbImage) throws -> Outputs {
    var sums: [Float] = [0, 0, 0]
    for (place, byte) in image.bytes.enumerated() { sums[place % 3] += Float(byte) }
    return ["logits": try Tensor(shape: [1, 3], values: sums.map { $0 / Float(image.bytes.count / 3) })]
}
