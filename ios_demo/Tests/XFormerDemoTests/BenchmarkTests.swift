import Foundation
import TestSupport
import XCTest

@testable import XFormerCore
@testable import XFormerCoreML
@testable import XFormerDemo

final class BenchmarkProgressBarTests: XCTestCase {
    func testItGoesFromTheBeginningToTheEndAndNeverBack() {
        let targets = [BenchmarkTarget(units: .all), BenchmarkTarget(units: .cpuOnly)]
        var bar = BenchmarkProgressBar(targets)
        XCTAssertEqual(bar.share(at: .comparing(targets[0], done: 0, total: 4)), 0)
        XCTAssertEqual(bar.share(at: .comparing(targets[0], done: 4, total: 4)), 0.1, accuracy: 1e-9)
        XCTAssertEqual(
            bar.share(at: .timing(targets[0], BenchmarkProgress(phase: .inference, done: 50, total: 100))), 0.3,
            accuracy: 1e-9)
        XCTAssertEqual(
            bar.share(at: .timing(targets[0], BenchmarkProgress(phase: .warmUp, done: 0, total: 100))), 0.3,
            accuracy: 1e-9)
        XCTAssertEqual(
            bar.share(at: .timing(targets[1], BenchmarkProgress(phase: .postprocess, done: 10, total: 10))), 1,
            accuracy: 1e-9)
        XCTAssertEqual(bar.share(at: .comparing(targets[0], done: 0, total: 0)), 1, accuracy: 1e-9)
    }
}

final class BenchmarkRunnerTests: XCTestCase {
    private let targets = [BenchmarkTarget(units: .all), BenchmarkTarget(units: .cpuOnly)]

    func testEachTargetIsComparedAndMeasured() async throws {
        let directory = try Directory()
        let bundle = try ModelBundle.open(directory.bundle("classify"))
        let report = try await BenchmarkRunner(bundle: bundle, device: FakeDevice()).run(targets, runs: 10) { _ in }
        XCTAssertTrue(report.passed)
        XCTAssertEqual(report.outcomes.map(\.target), targets)
        XCTAssertEqual(report.outcomes.map { $0.parity?.images }, [bundle.goldenCount, bundle.goldenCount])
        let run = try XCTUnwrap(report.run)
        XCTAssertEqual(run.measurements.count, 2)
        XCTAssertEqual(run.tools, ["coreml": "17.0"])
        XCTAssertEqual(run.measurements.map { $0.phases.inference.samplesNs.count }, [10, 10])
        XCTAssertEqual(run.measurements.map(\.engine.accelerator), ["all (requested)", "cpu-only (requested)"])
    }

    func testOneThatFailsDoesNotKeepTheOthersFromBeingMeasured() async throws {
        let directory = try Directory()
        let bundle = try ModelBundle.open(directory.bundle("classify"))
        let device = FakeDevice { target, outputs in
            if target.units == .all { throw XFormerError.engine("no such unit") }
            return outputs
        }
        let report = try await BenchmarkRunner(bundle: bundle, device: device).run(targets, runs: 10) { _ in }
        XCTAssertFalse(report.passed)
        XCTAssertEqual(report.outcomes[0].error, "no such unit")
        XCTAssertNil(report.outcomes[0].measurement)
        XCTAssertTrue(report.outcomes[1].passed)
        XCTAssertEqual(report.run?.measurements.count, 1)
    }

    func testWrongOutputsAreMeasuredAndDoNotPass() async throws {
        let directory = try Directory()
        let bundle = try ModelBundle.open(directory.bundle("classify"))
        let report = try await BenchmarkRunner(bundle: bundle, device: FakeDevice(change: wrongOutputs))
            .run([targets[0]], runs: 10) { _ in }
        XCTAssertEqual(report.outcomes[0].parity?.passed, false)
        XCTAssertNil(report.outcomes[0].error)
        XCTAssertNotNil(report.run)
        XCTAssertFalse(report.passed)
    }

    func testWhatTheReporterThrowsEndsIt() async throws {
        let directory = try Directory()
        let bundle = try ModelBundle.open(directory.bundle("classify"))
        do {
            _ = try await BenchmarkRunner(bundle: bundle, device: FakeDevice()).run(targets, runs: 10) { step in
                if case .timing = step { throw CancellationError() }
            }
            XCTFail("it went on")
        } catch is CancellationError {}
    }
}

@MainActor
final class BenchmarkStateTests: XCTestCase, @unchecked Sendable {
    private let directory = Result { try Directory() }

    private func state(
        device: FakeDevice = FakeDevice(), refusal: XFormerError? = nil
    ) throws -> BenchmarkState {
        let place = try directory.get().bundle("classify")
        return BenchmarkState(
            open: {
                if let refusal { throw refusal }
                return ("classify", try ModelBundle.open(place))
            }, problem: { "no bundle: \($0)" }, device: device,
            results: ResultStore(directory: try directory.get().url.appendingPathComponent("results"), most: 2))
    }

    func testFromStartToTheSharedFile() async throws {
        let state = try state()
        XCTAssertFalse(state.canStart)
        await state.appear()
        XCTAssertTrue(state.canStart)
        state.runs = 10
        state.start()
        XCTAssertTrue(state.isRunning)
        XCTAssertFalse(state.canStart)
        state.start()
        await state.settled()
        guard case .done(let report) = state.phase else { return XCTFail("\(state.phase)") }
        XCTAssertEqual(report.outcomes.map(\.target.units), [.all, .cpuOnly])
        let file = try XCTUnwrap(state.file)
        XCTAssertTrue(file.lastPathComponent.hasPrefix("latency-20"), file.lastPathComponent)
        let run = try JSONDecoder().decode(LatencyRun.self, from: Data(contentsOf: file))
        XCTAssertEqual(run.measurements.count, 2)
    }

    func testWithoutAnythingChosen() async throws {
        let state = try state()
        await state.appear()
        state.toggle(.all)
        state.toggle(.cpuOnly)
        state.start()
        guard case .stopped(Words.benchmarkNothing) = state.phase else { return XCTFail("\(state.phase)") }
    }

    func testCancelling() async throws {
        for why in [Words.benchmarkCancelled, Words.benchmarkLeft, Words.benchmarkMemory] {
            let state = try state()
            await state.appear()
            state.runs = 1_000_000
            state.start()
            state.cancel(why)
            await state.settled()
            guard case .stopped(why) = state.phase else { return XCTFail("\(state.phase)") }
            XCTAssertNil(state.file)
            state.cancel()
        }
    }

    func testWhatKeepsItFromBeginningIsSaid() async throws {
        let without = try state(refusal: .bundle("none"))
        await without.appear()
        guard case .none("no bundle: none") = without.subject else { return XCTFail("\(without.subject)") }
        without.start()
        guard case .idle = without.phase else { return XCTFail("\(without.phase)") }
        let refusing = try state(device: FakeDevice(refusal: .engine("not on this device")))
        await refusing.appear()
        refusing.start()
        await refusing.settled()
        guard case .stopped("This did not work: not on this device") = refusing.phase else {
            return XCTFail("\(refusing.phase)")
        }
    }
}

final class OutcomeTextTests: XCTestCase {
    func testABenchmarkInWords() async throws {
        let directory = try Directory()
        let bundle = try ModelBundle.open(directory.bundle("classify"))
        let target = BenchmarkTarget(units: .cpuOnly)
        let good = try await BenchmarkRunner(bundle: bundle, device: FakeDevice()).run([target], runs: 10) { _ in }
            .outcomes[0]
        XCTAssertEqual(OutcomeText.title(of: target), "coreml on Core ML, CPU only")
        XCTAssertEqual(OutcomeText.verdict(of: good), "Parity: PASS")
        let details = OutcomeText.details(of: good).joined(separator: "\n")
        let figures = "logits: largest difference 0.0e+00 of the range, SNR infinite (equal)"
        XCTAssertTrue(details.contains(figures), details)
        XCTAssertTrue(details.contains("Allowed: "), details)
        let table = OutcomeText.table(of: good)
        XCTAssertEqual(table[0], ["phase", "samples", "min", "median", "p90", "p99", "spread"])
        XCTAssertEqual(table.dropFirst().map { $0[0] }, ["load", "first run", "preprocess", "inference", "postprocess"])
        XCTAssertEqual(Set(table.map(\.count)), [7])
        XCTAssertEqual(
            OutcomeText.sentence(for: ["load", "1", "2 ms", "3 ms", "4 ms", "5 ms", "6 %"], under: table[0]),
            "load, samples 1, min 2 ms, median 3 ms, p90 4 ms, p99 5 ms, spread 6 %")
        XCTAssertEqual(OutcomeText.notes(of: good).last, "Thermal state: this device does not say")
        let bad = try await BenchmarkRunner(bundle: bundle, device: FakeDevice(change: wrongOutputs))
            .run([target], runs: 10) { _ in }.outcomes[0]
        XCTAssertEqual(OutcomeText.verdict(of: bad), "Parity: FAIL")
    }

    func testOneThatCouldNotBeMeasured() {
        let outcome = BenchmarkOutcome(target: BenchmarkTarget(units: .all), error: "refused")
        XCTAssertEqual(OutcomeText.verdict(of: outcome), "Parity: not known")
        XCTAssertEqual(OutcomeText.details(of: outcome), ["Not measured: refused"])
        XCTAssertEqual(OutcomeText.table(of: outcome), [])
        XCTAssertEqual(OutcomeText.notes(of: outcome), [])
    }

    func testSteps() {
        let target = BenchmarkTarget(units: .cpuOnly)
        XCTAssertEqual(
            OutcomeText.describe(.comparing(target, done: 1, total: 4)),
            "coreml on Core ML, CPU only: comparing with the reference, picture 2 of 4")
        XCTAssertEqual(
            OutcomeText.describe(.comparing(target, done: 4, total: 4)),
            "coreml on Core ML, CPU only: comparing with the reference, picture 4 of 4")
        XCTAssertEqual(
            OutcomeText.describe(.timing(target, BenchmarkProgress(phase: .load, done: 0, total: 1))),
            "coreml on Core ML, CPU only: timing")
    }
}

final class ResultStoreTests: XCTestCase {
    func testNames() {
        for name in ["a.json", "latency-2025.json", String(repeating: "x", count: 95) + ".json"] {
            XCTAssertTrue(ResultName.isValid(name), name)
        }
        let long = String(repeating: "x", count: 96) + ".json"
        for name in ["", ".json", "a.txt", "../a.json", "a/b.json", ".a.json", long] {
            XCTAssertFalse(ResultName.isValid(name), name)
        }
        XCTAssertEqual(ResultName.status(of: "results.json"), "results.status.json")
    }

    func testTheOldestAreDeleted() throws {
        let directory = try Directory()
        let store = ResultStore(directory: directory.url.appendingPathComponent("made"), most: 2)
        for (age, name) in ["c.json", "a.json", "b.json"].enumerated() {
            let file = try store.write(Data(name.utf8), as: name)
            try FileManager.default.setAttributes(
                [.modificationDate: Date(timeIntervalSince1970: Double(1000 * age))], ofItemAtPath: file.path)
        }
        func names() throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: store.directory.path).sorted()
        }
        XCTAssertEqual(try names(), ["a.json", "b.json"])
        try store.delete("a.json")
        try store.delete("a.json")
        XCTAssertEqual(try names(), ["b.json"])
        XCTAssertThrowsError(try store.write(Data(), as: "../a.json"))
        XCTAssertThrowsError(try store.delete("/etc/passwd"))
    }
}
