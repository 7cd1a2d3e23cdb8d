import XCTest
import XFormerCore
import XFormerCoreML

/// Parity and speed of the app's bundles on the device that runs the tests. The plan Performance.xctestplan runs them
/// in Release and without debugger; Xcode keeps a baseline for each device.
///
/// What is measured are whole runs of the model, the picture already fitted. `make ios-assets` brings the bundles.
final class PerformanceTests: XCTestCase {
    /// Runs of one measured block.
    private static let runs = 10

    /// The bundles that are built into the app, which hosts the tests; each compiled.
    private var models: [(bundle: ModelBundle, compiled: CompiledModel)] = []

    override func setUp() async throws {
        let folder = Bundle.main.bundleURL.appendingPathComponent("Bundles", isDirectory: true)
        let found = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .filter { !$0.lastPathComponent.hasPrefix(".") }
            .sorted { $0.lastPathComponent < $1.lastPathComponent }
        for directory in found {
            let bundle = try ModelBundle.open(directory)
            models.append((bundle, try await CompiledModels().model(for: bundle.artifact(.coreml))))
        }
        XCTAssertFalse(models.isEmpty, "the app has no bundle; run make ios-assets and build it again")
    }

    /// Each bundle computes on each of the compute units what the reference model computes.
    func testGoldenReplay() throws {
        for (bundle, compiled) in models {
            for units in ComputeUnits.allCases {
                let engine = try CoreMLEngine(compiled, for: bundle, computeUnits: units)
                defer { engine.close() }
                let result = try GoldenReplay.run(bundle, format: .coreml, engine: engine, decode: Pictures.decoder)
                XCTAssertTrue(result.passed, "\(name(of: bundle)) on \(units.rawValue): \(result.misses)")
            }
        }
    }

    /// All samples of every bundle, in the file that `xformer-bench show` reads, attached to the test's result.
    func testLatencyRun() throws {
        let device = DeviceInfo()
        for (bundle, compiled) in models {
            let run = try Benchmark.measure(
                bundle, format: .coreml, machine: device.machine(), settings: BenchmarkSettings(runs: 100),
                probe: device
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

    func testClassify() throws { try measureInference(of: .classify) }

    func testDetect() throws { try measureInference(of: .detect) }

    func testSegment() throws { try measureInference(of: .segment) }

    /// Time, processor time and memory of the first bundle of a task, on what Core ML chooses.
    private func measureInference(of task: ModelTask) throws {
        let (bundle, compiled) = try XCTUnwrap(
            models.first { $0.bundle.task == task }, "the app has no bundle to \(task.rawValue); run make ios-assets")
        let engine = try CoreMLEngine(compiled, for: bundle)
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

    private func name(of bundle: ModelBundle) -> String { bundle.directory.lastPathComponent }
}
