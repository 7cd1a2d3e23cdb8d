import Foundation
import TestSupport
import XCTest

@testable import XFormerCore

final class LatencyRunTests: XCTestCase {
    private func run() throws -> LatencyRun {
        let phase = LatencyRun.Measurement.Phase(samplesNs: [3, 1, 2])
        let measurement = LatencyRun.Measurement(
            model: .init(
                task: "detect", variant: "xformer_s", precision: "int8",
                imageSize: try ImageSize(height: 128, width: 320)),
            artifact: .init(format: "coreml", sha256: String(repeating: "0", count: 64), sizeBytes: 5),
            engine: .init(name: "coreml", threads: nil),
            phases: .init(
                load: phase, firstRun: phase, preprocess: .init(samplesNs: []),
                inference: .init(samplesNs: [4, 5], warmUpsNs: [9], processes: [2]), postprocess: phase),
            memory: .init(rssPeakBytes: 6),
            disturbances: .init(preempted: 1, unstableWarmUps: 0, thermalState: "fair", tooNoisy: ["a \"/\" reason"]))
        return LatencyRun(
            created: Date(timeIntervalSince1970: 1_738_326_645.999),
            machine: try LatencyRun.Machine(id: "0123", system: "iOS", usableCpus: 2, loadAverage: 0.5),
            tools: ["coreml": "17.4"], measurements: [measurement])
    }

    /// Every field's name, and what is left out: xformer_mobile/schemas/latency_run.schema.json.
    func testTheDocument() throws {
        let zeros = String(repeating: "0", count: 64)
        let expected = [
            #"{"created":"2025-01-31T12:30:45Z","generator":{"name":"xformer-mobile-ios","version":"0.1.0"},"#,
            #""machine":{"id":"0123","load_average":0.5,"system":"iOS","usable_cpus":2},"measurements":[{"#,
            #""artifact":{"format":"coreml","sha256":"\#(zeros)","size_bytes":5},"#,
            #""disturbances":{"preempted":1,"thermal_state":"fair","too_noisy":["a \"/\" reason"],"#,
            #""unstable_warm_ups":0},"engine":{"name":"coreml","threads":null},"memory":{"rss_peak_bytes":6},"#,
            #""model":{"image_size":[128,320],"precision":"int8","task":"detect","variant":"xformer_s"},"#,
            #""phases":{"first_run":{"samples_ns":[3,1,2]},"#,
            #""inference":{"processes":[2],"samples_ns":[4,5],"warm_ups_ns":[9]},"load":{"samples_ns":[3,1,2]},"#,
            #""postprocess":{"samples_ns":[3,1,2]},"preprocess":{"samples_ns":[]}}}],"#,
            #""schema_version":"1.0","tools":{"coreml":"17.4"}}"#,
        ]
        XCTAssertEqual(String(decoding: try run().json(), as: UTF8.self), expected.joined() + "\n")
    }

    func testWhatWasWrittenIsRead() throws {
        XCTAssertEqual(try JSONDecoder().decode(LatencyRun.self, from: run().json()), try run())
    }

    func testStatisticsOfEachPhaseThatHasSamples() throws {
        let found = try XCTUnwrap(run().measurements.first).statistics()
        XCTAssertEqual(found.map(\.phase), [.load, .firstRun, .inference, .postprocess])
        XCTAssertEqual(found.map(\.statistics.p50Ns), [2, 2, 4.5, 2])
    }

    func testNumbersThatCannotBeAreRefused() throws {
        typealias Machine = LatencyRun.Machine
        let cases: [() throws -> Machine] = [
            { try Machine(id: "", system: "iOS") },
            { try Machine(id: "0", system: String(repeating: "x", count: 501)) },
            { try Machine(id: "0", system: "iOS", cpus: 0) },
            { try Machine(id: "0", system: "iOS", usableCpus: -1) },
            { try Machine(id: "0", system: "iOS", memoryBytes: -1) },
            { try Machine(id: "0", system: "iOS", loadAverage: .nan) },
            { try Machine(id: "0", system: "iOS", loadAverage: -1) },
        ]
        for (number, make) in cases.enumerated() { _ = refusal(.benchmark, "case \(number)", make) }
    }

    func testTheVersionIsThatOfTheProject() throws {
        let root = Golden.root.deletingLastPathComponent().deletingLastPathComponent()
        let text = try String(contentsOf: root.appendingPathComponent("xformer_mobile/__init__.py"), encoding: .utf8)
        XCTAssertTrue(text.contains("\n__version__ = \"\(XFormerKit.version)\"\n"))
    }
}
