import XCTest
import XFormerCore
import XFormerCoreML

/// Parity and speed of the app's bundles on the device that runs the tests. The plan Performance.xctestplan runs them
/// without debugger and sanitizers; Xcode keeps a baseline for each device.
///
/// The times are of the whole run of the model, the picture already fitted. `make ios-assets` brings the bundles.
final class PerformanceTests: XCTestCase {
    /// Runs of one measured block.
    private static let runs = 10

    /// Each bundle computes on each of the compute units what the reference model computes.
    func testGoldenReplay() async throws {
        for bundle in try bundles() {
            for units in ComputeUnits.allCases {
                let engine = try await open(bundle, units)
                defer { engine.close() }
                let result = try GoldenReplay.run(bundle, format: .coreml, engine: engine, decode: Pictures.decoder)
                XCTAssertTrue(result.passed, "\(name(of: bundle)) on \(units.rawValue): \(result.misses)")
            }
        }
    }

    /// All samples of every bundle, in the file that `xformer-bench show` reads, attached to the test's result.
    func testLatencyRun() async throws {
        for bundle in try bundles() {
            let compiled = try await CompiledModels().model(for: bundle.artifact(.coreml))
            let device = DeviceInfo()
            let run = try Benchmark.measure(
                bundle, format: .coreml, machine: device.machine(), settings: BenchmarkSettings(runs: 100), probe: device
            ) {
                try CoreMLEngine(compiled, for: bundle)
            }
            let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(name(of: bundle)).json")
            try run.json().write(to: file)
            let attachment = XCTAttachment(contentsOfFile: file)
            attachment.name = file.lastPathComponent
            attachment.lifetime = .keepAlways
            add(attachment)
        }
    }

    func testClassify() async throws { try await measureInference(of: .classify) }

    func testDetect() async throws { try await measureInference(of: .detect) }

    func testSegment() async throws { try await measureInference(of: .segment) }

    /// Time, processor time and memory of the first bundle of a task, on what Core ML chooses.
    private func measureInference(of task: ModelTask) async throws {
        let bundle = try XCTUnwrap(
            try bundles().first { $0.task == task }, "the app has no bundle for \(task.rawValue); run make ios-assets")
        let engine = try await open(bundle, .all)
        defer { engine.close() }
        let image = try bundle.golden(0, decode: Pictures.decoder).image
        // The first runs are slower.
        for _ in 0..<Self.runs { _ = try engine.run(image) }
        let options = XCTMeasureOptions()
        options.iterationCount = 10
        measure(metrics: [XCTClockMetric(), XCTCPUMetric(), XCTMemoryMetric()], options: options) {
            do {
                for _ in 0..<Self.runs { _ = try engine.run(image) }
            } catch {
                XCTFail(error.localizedDescription)
            }
        }
    }

    /// The bundles that are built into the app, which hosts the tests; fails where there is none.
    private func bundles() throws -> [ModelBundle] {
        let folder = Bundle.main.bundleURL.appendingPathComponent("Bundles", isDirectory: true)
        let found = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .filter { !$0.lastPathComponent.hasPrefix(".") }
            .sorted { $0.lastPathComponent < $1.lastPathComponent }
            .map(ModelBundle.open)
        XCTAssertFalse(found.isEmpty, "the app has no bundle; run make ios-assets and build it again")
        return found
    }

    private func open(_ bundle: ModelBundle, _ units: ComputeUnits) async throws -> CoreMLEngine {
        let compiled = try await CompiledModels().model(for: bundle.artifact(.coreml))
        return try CoreMLEngine(compiled, for: bundle, computeUnits: units)
    }

    private func name(of bundle: ModelBundle) -> String { bundle.directory.lastPathComponent }
}
