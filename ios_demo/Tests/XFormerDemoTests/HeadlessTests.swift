import Foundation
import TestSupport
import XCTest
import XFormerCore
import XFormerCoreML

@testable import XFormerDemo

final class HeadlessArgumentsTests: XCTestCase {
    func testWhatIsAskedFor() throws {
        XCTAssertFalse(HeadlessArguments.isAsked(by: ["--bundle", "a"]))
        XCTAssertTrue(HeadlessArguments.isAsked(by: ["--benchmark"]))
        let usual = try HeadlessArguments(["--benchmark"])
        XCTAssertNil(usual.bundle)
        XCTAssertEqual(usual.units, [.all])
        XCTAssertEqual(usual.runs, 200)
        XCTAssertEqual(usual.output, "results.json")
        let asked = try HeadlessArguments([
            "--benchmark", "--bundle", "detect", "--units=cpu-only,all+cpu-only", "--runs", "50", "--output=a.json",
        ])
        XCTAssertEqual(asked.bundle, "detect")
        XCTAssertEqual(asked.units, [.cpuOnly, .all])
        XCTAssertEqual(asked.runs, 50)
        XCTAssertEqual(asked.output, "a.json")
    }

    func testWhatCannotBeRightIsRefused() {
        let cases = [
            (["--speed", "7"], "unknown argument '--speed'; valid: --bundle, --units, --runs, --output"),
            (["--runs"], "--runs has no value; write --runs value"),
            (["--runs", "9"], "--runs is '9'; valid: 10 to 100000"),
            (["--runs", "99999999999999999999"], "--runs is '99999999999999999999'; valid: 10 to 100000"),
            (["--bundle", "../up"], "--bundle '../up' is no bundle's name; valid: letters, digits, . _ and -"),
            (
                ["--units", "cpu-only,tpu"],
                "--units has 'tpu'; valid: all, cpu-only, cpu-and-gpu, cpu-and-neural-engine"
            ),
            (["--units", ","], "--units names none; write --units all"),
            (
                ["--output", "/tmp/a.json"],
                "--output '/tmp/a.json' is not valid; valid is the name of a .json file, without a folder, of "
                    + "letters, digits, . _ and -"
            ),
        ]
        for (arguments, message) in cases {
            XCTAssertThrowsError(try HeadlessArguments(arguments)) { error in
                XCTAssertEqual(error as? XFormerError, .usage(message))
            }
        }
    }

    func testTheStatusGoesWhereItIsLookedFor() {
        XCTAssertEqual(HeadlessArguments.output(of: ["--runs", "x", "--output", "a.json"]), "a.json")
        XCTAssertEqual(HeadlessArguments.output(of: ["--output=b.json"]), "b.json")
        XCTAssertEqual(HeadlessArguments.output(of: ["--output", "../b.json"]), "results.json")
        XCTAssertEqual(HeadlessArguments.output(of: ["--output"]), "results.json")
        XCTAssertEqual(HeadlessArguments.output(of: []), "results.json")
    }
}

final class HeadlessBenchmarkTests: XCTestCase, @unchecked Sendable {
    private final class Log: @unchecked Sendable {
        private let lock = NSLock()
        private var all: [String] = []

        var lines: [String] { lock.withLock { all } }

        func add(_ line: String) { lock.withLock { all.append(line) } }
    }

    private func benchmark(
        _ directory: Directory, device: FakeDevice = FakeDevice(), log: Log = Log()
    ) throws -> HeadlessBenchmark {
        let place = try directory.bundle("classify")
        return HeadlessBenchmark(
            results: ResultStore(directory: directory.url.appendingPathComponent("documents")),
            open: { name in
                if let name, name != "classify" { throw XFormerError.bundle("the app has no bundle '\(name)'") }
                return ("classify", try ModelBundle.open(place))
            }, device: device, log: { log.add($0) })
    }

    private func status(_ directory: Directory, _ name: String = "results.status.json") throws -> [String: Any] {
        let data = try Data(contentsOf: directory.url.appendingPathComponent("documents/\(name)"))
        return try XCTUnwrap(JSONSerialization.jsonObject(with: data) as? [String: Any])
    }

    func testPassed() async throws {
        let (directory, log) = (try Directory(), Log())
        let ended = try await benchmark(directory, log: log).run(["--benchmark", "--runs", "10"]) { _ in }
        XCTAssertEqual(ended.state, .passed)
        XCTAssertEqual(log.lines, ["XFORMER_RESULT: passed: 1 of 1 passed; measurements in results.json"])
        let written = try status(directory)
        XCTAssertEqual(written["status"] as? String, "passed")
        XCTAssertEqual(written["bundle"] as? String, "classify")
        let target = try XCTUnwrap((written["targets"] as? [[String: Any]])?.first)
        XCTAssertEqual(target["units"] as? String, "all")
        XCTAssertEqual((target["parity"] as? [String: Any])?["passed"] as? Bool, true)
        XCTAssertNotNil(target["inference_median_ns"] as? Double)
        let data = try Data(contentsOf: directory.url.appendingPathComponent("documents/results.json"))
        XCTAssertEqual(try JSONDecoder().decode(LatencyRun.self, from: data).measurements.count, 1)
    }

    func testFailed() async throws {
        let directory = try Directory()
        let ended = try await benchmark(directory, device: FakeDevice(change: wrongOutputs))
            .run(["--runs", "10", "--units", "cpu-only", "--output", "a.json"]) { _ in }
        XCTAssertEqual(ended.state, .failed)
        XCTAssertEqual(
            try status(directory, "a.status.json")["message"] as? String, "0 of 1 passed; measurements in a.json")
    }

    func testErrorsEndWithAStatusAndWithoutOldResults() async throws {
        let directory = try Directory()
        let benchmark = try benchmark(directory)
        _ = await benchmark.run(["--runs", "10"]) { _ in }
        let results = directory.url.appendingPathComponent("documents/results.json").path
        XCTAssertTrue(FileManager.default.fileExists(atPath: results))
        for (arguments, message) in [
            (["--runs", "x"], "--runs is 'x'; valid: 10 to 100000"),
            (["--bundle", "gone"], "the app has no bundle 'gone'"),
        ] {
            let ended = await benchmark.run(arguments) { _ in }
            XCTAssertEqual(ended.logLine, "XFORMER_RESULT: error: \(message)")
            XCTAssertEqual(try status(directory)["message"] as? String, message)
            XCTAssertFalse(FileManager.default.fileExists(atPath: results))
        }
        let cut = await benchmark.run([]) { _ in throw CancellationError() }
        XCTAssertEqual(cut.state, .error)
    }

    func testNoPlaceForTheFiles() async throws {
        let (directory, log) = (try Directory(), Log())
        try Data().write(to: directory.url.appendingPathComponent("documents"))
        let ended = try await benchmark(directory, log: log).run(["--runs", "10"]) { _ in }
        XCTAssertEqual(ended.state, .error)
        XCTAssertEqual(log.lines.count, 1)
        XCTAssertEqual(log.lines.first?.contains("\n"), false)
    }

    @MainActor
    func testTheScreenShowsHowItEnded() async throws {
        let directory = try Directory()
        let state = HeadlessState(try benchmark(directory), arguments: ["--runs", "10"])
        state.start()
        state.start()
        await state.settled()
        XCTAssertEqual(state.status?.state, .passed)
        XCTAssertEqual(state.text, state.status?.logLine)
        XCTAssertNil(state.exitCode)
        let cut = HeadlessState(try benchmark(directory), arguments: ["--runs", "100000", "--end"])
        cut.start()
        cut.cancel()
        await cut.settled()
        XCTAssertEqual(cut.status?.state, .error)
        XCTAssertEqual(cut.exitCode, 1)
    }
}
