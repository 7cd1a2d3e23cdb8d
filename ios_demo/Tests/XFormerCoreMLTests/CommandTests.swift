#if os(Linux)
import CoreML
import TestSupport
import XCTest
import XFormerCore
import XFormerCoreML

@testable import xformer_bench_apple

final class CommandTests: XCTestCase {
    /// What a command wrote.
    private struct Output {
        var status: Int32 = -1
        var lines: [String] = []
        var complaints: [String] = []
    }

    private func run(_ words: [String], _ files: ModelFiles? = nil) async throws -> Output {
        let directory = files?.root ?? FileManager.default.temporaryDirectory
        var output = Output()
        let lines = Lines()
        let complaints = Lines()
        let command = Command(
            write: { lines.add($0) }, complain: { complaints.add($0) },
            models: files?.models ?? CompiledModels(directory: directory), device: DeviceInfo(directory: directory),
            settings: { try BenchmarkSettings(runs: $0, phaseRuns: 1, maxWarmUps: 1) })
        output.status = await command.run(words)
        output.lines = lines.all
        output.complaints = complaints.all
        return output
    }

    private final class Lines {
        var all: [String] = []
        func add(_ line: String) { all.append(line) }
    }

    // MARK: - Arguments

    func testArguments() throws {
        XCTAssertEqual(try Arguments.read(["b"]), Arguments(bundle: "b"))
        XCTAssertEqual(
            try Arguments.read(["--runs", "7", "b", "--compute-units", "cpu-only", "--json", "-", "--golden"]),
            Arguments(bundle: "b", computeUnits: .cpuOnly, runs: 7, json: "-", golden: true))
        XCTAssertNil(try Arguments.read(["b", "--help"]))
        XCTAssertNil(try Arguments.read(["-h"]))
    }

    func testWrongUsage() async throws {
        let cases: [([String], String)] = [
            ([], "got 0 bundles"), (["a", "b"], "got 2 bundles"), ([""], "give one"),
            (["b", "--run", "3"], "unknown option '--run'; valid: --compute-units, --runs, --json, --golden, --help"),
            (["b", "--runs"], "--runs needs a value"), (["b", "--runs", "0"], "valid: 1 to 1000000"),
            (["b", "--runs", "99999999999999999999"], "valid: 1 to 1000000"),
            (["b", "--compute-units", "npu"], "valid: all, cpu-only, cpu-and-gpu, cpu-and-neural-engine"),
        ]
        for (words, expected) in cases {
            let output = try await run(words)
            XCTAssertEqual(output.status, 2)
            XCTAssertEqual(output.complaints.count, 1)
            XCTAssertTrue(output.complaints.joined().contains(expected), "\(output.complaints)")
            XCTAssertEqual(output.lines, [])
        }
    }

    func testHelp() async throws {
        let output = try await run(["--help"])
        XCTAssertEqual(output.status, 0)
        XCTAssertEqual(output.lines, [Arguments.usage])
    }

    // MARK: - Measuring

    func testMeasuresAndComparesAndWritesTheDocument() async throws {
        let files = try ModelFiles.make(.classify, for: self) { model in
            model.outputs[0].dataType = "float16"
            model.outputs[0].padding = 3
            model.operations = [.init(name: "conv", device: "neuralEngine", cost: 1)]
        }
        let file = files.root.appendingPathComponent("run.json")
        let words = ["--golden", "--runs", "12", "--json", file.path, "--compute-units", "cpu-only"]
        let output = try await run([files.bundle.directory.path] + words, files)
        XCTAssertEqual(output.status, 0, "\(output)")
        XCTAssertEqual(output.complaints, [])
        XCTAssertTrue(output.lines.contains("compute plan: Neural Engine: 1 operation, 100.0 % of the cost"))
        XCTAssertTrue(output.lines.contains { $0.hasPrefix("golden: top-1 agreement 100.00 %") }, "\(output.lines)")
        for phase in ["load", "first_run", "preprocess", "inference", "postprocess"] {
            XCTAssertTrue(output.lines.contains { $0.hasPrefix(phase + " ") }, phase)
        }
        let run = try JSONDecoder().decode(LatencyRun.self, from: Data(contentsOf: file))
        let measurement = try XCTUnwrap(run.measurements.first)
        XCTAssertEqual(measurement.engine.name, "coreml")
        XCTAssertEqual(measurement.engine.accelerator, "cpu-only")
        XCTAssertEqual(measurement.phases.inference.samplesNs.count, 12)
        XCTAssertEqual(measurement.artifact.format, "coreml")
        XCTAssertNotNil(run.tools["coreml"])
    }

    func testTheDocumentIsAllThatStandardOutputHas() async throws {
        let files = try ModelFiles.make(.segment, for: self)
        let output = try await run([files.bundle.directory.path, "--runs", "2", "--json", "-"], files)
        XCTAssertEqual(output.status, 0, "\(output)")
        XCTAssertEqual(output.lines.count, 1)
        let document = try XCTUnwrap(output.lines.first)
        let run = try JSONDecoder().decode(LatencyRun.self, from: Data(document.utf8))
        XCTAssertEqual(run.measurements.first?.engine.accelerator, "all (requested)")
        XCTAssertFalse(output.complaints.isEmpty)
    }

    func testAModelThatComputesSomethingElseIsStatusOne() async throws {
        let files = try ModelFiles.make(.classify, for: self, error: 3)
        let output = try await run([files.bundle.directory.path, "--golden", "--runs", "1"], files)
        XCTAssertEqual(output.status, 1)
        XCTAssertTrue(output.lines.contains { $0.hasPrefix("golden: FAILED: logits") }, "\(output.lines)")
        let unasked = try await run([files.bundle.directory.path, "--runs", "1"], files)
        XCTAssertEqual(unasked.status, 0)
    }

    func testWhatCannotBeRunIsStatusOneInOneLine() async throws {
        let missing = try await run(["/nowhere"])
        XCTAssertEqual(missing.status, 1)
        XCTAssertEqual(missing.complaints.count, 1)
        let files = try ModelFiles.make(.classify, for: self)
        CoreMLDouble.predict = { _ in throw MLModelError(.generic, "no") }
        let failing = try await run([files.bundle.directory.path, "--runs", "1"], files)
        XCTAssertEqual(failing.status, 1)
        XCTAssertEqual(failing.complaints, ["xformer-bench-apple: Core ML failed: no"])
        CoreMLDouble.predict = nil
        let unwritable = try await run(
            [files.bundle.directory.path, "--runs", "1", "--json", "/dev/null/run.json"], files)
        XCTAssertEqual(unwritable.status, 1)
        XCTAssertTrue(unwritable.complaints.joined().contains("can't write /dev/null/run.json"))
    }

    func testNoPlanIsNoError() async throws {
        let files = try ModelFiles.make(.classify, for: self) { $0.isProgram = false }
        let output = try await run([files.bundle.directory.path, "--runs", "1"], files)
        XCTAssertEqual(output.status, 0)
        XCTAssertTrue(output.lines.contains { $0.hasPrefix("compute plan: Core ML makes no compute plan") })
    }
}
#endif
