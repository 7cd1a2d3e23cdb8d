import TestSupport
import XCTest

@testable import XFormerCore

final class BenchmarkTests: XCTestCase {
    private typealias Measurement = LatencyRun.Measurement

    /// A clock that goes on by a step each time that it is read, so that all takes as long.
    private final class StepClock: BenchmarkClock, @unchecked Sendable {
        private let stepNs: (Int) -> Int
        private var reads = 0
        private var time = 0

        init(_ stepNs: @escaping (Int) -> Int = { _ in 1_000_000 }) { self.stepNs = stepNs }

        func nanoseconds() -> Int {
            time += stepNs(reads)
            reads += 1
            return time
        }

        func now() -> Date { Date(timeIntervalSince1970: 1_738_326_645.678) }
    }

    private func bundle(_ task: ModelTask = .classify, in directory: URL) throws -> ModelBundle {
        try TestBundle(task).write(to: directory)
        return try ModelBundle.open(directory)
    }

    private func zeros(_ bundle: ModelBundle) throws -> Outputs {
        try bundle.outputShapes.mapValues {
            try Tensor(shape: $0, values: [Float](repeating: 0, count: $0.reduce(1, *)))
        }
    }

    private func machine() throws -> LatencyRun.Machine {
        try LatencyRun.Machine(id: "0123456789abcdef", system: "iOS", release: "17.4", model: "iPhone16,1")
    }

    private func measure(
        _ task: ModelTask = .classify, engine: FakeEngine? = nil, settings: BenchmarkSettings? = nil,
        probe: some BenchmarkProbe = SilentProbe(), clock: StepClock = StepClock(),
        report: (BenchmarkProgress) throws -> Void = { _ in }
    ) throws -> LatencyRun {
        try withTemporaryDirectory { directory in
            let bundle = try bundle(task, in: directory)
            return try Benchmark.measure(
                bundle, format: .onnx, machine: machine(), tools: ["onnxruntime": "1.23.2"],
                settings: settings ?? BenchmarkSettings(runs: 30, phaseRuns: 3), probe: probe, clock: clock,
                report: report
            ) {
                try engine ?? FakeEngine { [outputs = try self.zeros(bundle)] _ in outputs }
            }
        }
    }

    private func single(_ run: LatencyRun) throws -> Measurement {
        XCTAssertEqual(run.measurements.count, 1)
        return try XCTUnwrap(run.measurements.first)
    }

    private func document(_ run: LatencyRun) throws -> Json {
        let document = try Json.parse(run.json())
        XCTAssertEqual(try JsonSchema("latency_run").problems(of: document), [])
        return document
    }

    func testTheDocumentFollowsTheSchema() throws {
        for task in ModelTask.allCases {
            let run = try measure(task)
            _ = try document(run)
            let measured = try single(run)
            XCTAssertEqual(
                measured.model,
                Measurement.Model(
                    task: task.rawValue, variant: "xformer_xxs", precision: measured.model.precision,
                    imageSize: try ImageSize(height: 64, width: 64)))
            XCTAssertEqual(measured.artifact.format, "onnx")
            XCTAssertEqual(measured.artifact.sha256.count, 64)
            XCTAssertEqual(measured.engine, Measurement.Engine(name: "fake", threads: 2, accelerator: "cpu"))
            XCTAssertEqual(run.created, "2025-01-31T12:30:45Z")
            XCTAssertEqual(run.machine, try machine())
            XCTAssertEqual(run.tools, ["onnxruntime": "1.23.2"])
        }
    }

    func testEveryPhaseIsMeasuredApartAndWarmUpsDoNotCount() throws {
        let phases = try single(measure()).phases
        XCTAssertEqual(phases.byName().map(\.0), [.load, .firstRun, .preprocess, .inference, .postprocess])
        XCTAssertEqual(phases.byName().map { $0.1.samplesNs.count }, [1, 1, 3, 30, 3])
        XCTAssertEqual(phases.inference.warmUpsNs, [Int](repeating: 1_000_000, count: 10))
        XCTAssertEqual(phases.inference.processes, [30])
        XCTAssertTrue(phases.byName().allSatisfy { $0.1.samplesNs.allSatisfy { $0 == 1_000_000 } })
    }

    func testWhatIsNotKnownIsLeftOutAndWhatMustBeThereIsNull() throws {
        let report = EngineReport(engine: "coreml", version: "17.4", format: .coreml, requested: "all")
        let outputs = ["logits": try Tensor(shape: [1, 3], values: [1, 2, 3])]
        let document = try document(measure(engine: FakeEngine(report: report) { _ in outputs }))
        XCTAssertEqual(document.at("measurements/0/engine/threads"), .null)
        XCTAssertEqual(document.at("measurements/0/engine/accelerator"), .text("all (requested)"))
        XCTAssertNil(document.at("machine/boot"))
        XCTAssertEqual(document.at("measurements/0/memory"), .object([:]))
        XCTAssertNil(document.at("measurements/0/disturbances/thermal_state"))
    }

    private final class TalkingProbe: BenchmarkProbe, @unchecked Sendable {
        private var states: [ThermalState] = [.fair, .nominal, .serious]  // the third during the runs
        private var preempted = 0

        func thermalState() -> ThermalState? { states.isEmpty ? .nominal : states.removeFirst() }

        func residentBytes() -> Int? { 5000 }

        func peakResidentBytes() -> Int? { 6000 }

        func preemptions() -> Int? {
            preempted += 7
            return preempted
        }
    }

    func testWhatTheDeviceSaysIsInTheDocument() throws {
        let run = try measure(probe: TalkingProbe())
        _ = try document(run)
        let measured = try single(run)
        XCTAssertEqual(
            measured.memory, Measurement.Memory(rssStartBytes: 5000, rssLoadedBytes: 5000, rssPeakBytes: 6000))
        XCTAssertEqual(
            measured.disturbances,
            Measurement.Disturbances(
                preempted: 7, unstableWarmUps: 0, thermalState: "serious",
                tooNoisy: ["the thermal state was serious"]))
    }

    func testADeviceThatGetsSlowerAndSlowerIsNoisy() throws {
        let settings = try BenchmarkSettings(runs: 30, phaseRuns: 3, maxWarmUps: 20)
        let measured = try single(measure(settings: settings, clock: StepClock { $0 * 100_000 }))
        XCTAssertEqual(measured.phases.inference.warmUpsNs?.count, 20)
        XCTAssertEqual(measured.disturbances?.unstableWarmUps, 1)
        let reasons = try XCTUnwrap(measured.disturbances?.tooNoisy)
        XCTAssertTrue(reasons.contains("the times were still changing when the warm-up was given up"), "\(reasons)")
    }

    func testTheWarmUpEndsWhenItsTimeIsOver() throws {
        let settings = try BenchmarkSettings(runs: 30, phaseRuns: 3, maxWarmUpNs: 3_500_000)
        XCTAssertEqual(try single(measure(settings: settings)).phases.inference.warmUpsNs?.count, 4)
    }

    func testWhetherAWarmUpIsStable() {
        func times(_ count: Int, _ value: Int) -> [Int] { [Int](repeating: value, count: count) }
        let cases: [(name: String, samples: [Int], expected: Bool)] = [
            ("too few", times(9, 100), false),
            ("the same", times(10, 100), true),
            ("within 2 %, slower", times(5, 1000) + times(5, 1019), true),
            ("within 2 %, faster", times(5, 1000) + times(5, 981), true),
            ("more than 2 % slower", times(5, 1000) + times(5, 1021), false),
            ("more than 2 % faster", times(5, 1000) + times(5, 979), false),
            ("slow at first", times(20, 900) + times(10, 100), true),
            ("one outlier", times(9, 100) + [900], true),
            ("zeros", times(10, 0), false),
        ]
        for item in cases { XCTAssertEqual(Benchmark.isStable(item.samples), item.expected, item.name) }
    }

    func testProgressIsToldInOrder() throws {
        var told: [BenchmarkProgress] = []
        _ = try measure { told.append($0) }
        var phases: [BenchmarkPhase] = []
        for progress in told where progress.phase != phases.last { phases.append(progress.phase) }
        XCTAssertEqual(phases, [.load, .warmUp, .inference, .preprocess, .postprocess])
        XCTAssertEqual(told.filter { $0.phase == .inference }.map(\.done), Array(0..<30))
        XCTAssertTrue(told.allSatisfy { $0.done < $0.total })
    }

    func testWhatTheReportThrowsEndsTheBenchmarkAndClosesTheEngine() throws {
        for phase in [BenchmarkPhase.warmUp, .inference, .preprocess, .postprocess] {
            let engine = FakeEngine(compute: meanColor)
            XCTAssertThrowsError(
                try measure(engine: engine) { if $0.phase == phase { throw CancellationError() } }
            ) { XCTAssertTrue($0 is CancellationError) }
            XCTAssertEqual(engine.closed, 1)
        }
    }

    func testTheEngineIsClosedAtTheEndAndWhenItFails() throws {
        let engine = FakeEngine(compute: meanColor)
        _ = try measure(engine: engine)
        XCTAssertEqual(engine.closed, 1)
        var runs = 0
        let failing = FakeEngine { image in
            runs += 1
            if runs == 5 { throw XFormerError.engine("out of memory") }
            return try meanColor(image)
        }
        XCTAssertEqual(refusal(.engine) { try measure(engine: failing) }, "out of memory")
        XCTAssertEqual(failing.closed, 1)
    }

    func testAnEngineThatCannotBeOpened() throws {
        try withTemporaryDirectory { directory in
            let bundle = try bundle(in: directory)
            let message = refusal(.engine) {
                try Benchmark.measure(bundle, format: .onnx, machine: machine(), settings: BenchmarkSettings()) {
                    throw XFormerError.engine("no Neural Engine here")
                }
            }
            XCTAssertEqual(message, "no Neural Engine here")
            _ = refusal(.usage) {
                try Benchmark.measure(bundle, format: .executorch, machine: machine(), settings: BenchmarkSettings()) {
                    XCTFail("is not asked")
                    return FakeEngine(compute: meanColor)
                }
            }
        }
    }

    func testSettingsThatCannotBeAreRefused() {
        let cases: [() throws -> BenchmarkSettings] = [
            { try BenchmarkSettings(runs: 0) },
            { try BenchmarkSettings(runs: 1_000_001) },
            { try BenchmarkSettings(phaseRuns: 0) },
            { try BenchmarkSettings(maxWarmUps: -1) },
            { try BenchmarkSettings(maxWarmUpNs: -1) },
        ]
        for (number, make) in cases.enumerated() { _ = refusal(.usage, "case \(number)", make) }
    }

    func testTheSystemClockGoesForward() {
        let clock = SystemClock()
        let times = (0..<100).map { _ in clock.nanoseconds() }
        XCTAssertEqual(times, times.sorted())
        XCTAssertGreaterThan(times[0], 0)
        XCTAssertGreaterThan(clock.now().timeIntervalSince1970, 1.7e9)
    }

    func testThermalStatesAreInTheirOrder() {
        XCTAssertEqual(ThermalState.allCases.shuffled().sorted(), [.nominal, .fair, .serious, .critical])
    }
}
