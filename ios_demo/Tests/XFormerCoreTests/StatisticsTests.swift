import TestSupport
import XCTest

@testable import XFormerCore

/// Against numbers that Statistics and noise_of of xformer_mobile/bench/latency_run.py give for the same samples.
final class StatisticsTests: XCTestCase {
    private func drawn(_ count: Int, upTo range: Int) -> [Int] {
        var drawn = Drawn(seed: 5)
        return (0..<count).map { _ in 4_000_000 + drawn.next() % range }
    }

    func testStatistics() throws {
        let cases: [(count: Int, min: Int, p50: Double, p90: Double, p99: Double, spread: Double)] = [
            (101, 4_001_264, 4_533_676, 4_941_067, 4_993_073, 0.08985886949133551),
            (1, 4_993_073, 4_993_073, 4_993_073, 4_993_073, 0),
            (2, 4_282_360, 4_637_716.5, 4_922_001.7, 4_985_965.87, 0.061298529136052236),
            (10, 4_019_342, 4_340_222, 4_874_723, 4_981_238, 0.12315061303315822),
        ]
        for expected in cases {
            let found = try Statistics(samplesNs: drawn(expected.count, upTo: 1_000_000))
            XCTAssertEqual(found.count, expected.count)
            XCTAssertEqual(found.minNs, expected.min)
            XCTAssertEqual(found.p50Ns, expected.p50, accuracy: 1e-6)
            XCTAssertEqual(found.p90Ns, expected.p90, accuracy: 1e-6)
            XCTAssertEqual(found.p99Ns, expected.p99, accuracy: 1e-6)
            XCTAssertEqual(found.spread, expected.spread, accuracy: 1e-12)
        }
    }

    func testZerosHaveNoSpread() throws {
        XCTAssertEqual(try Statistics(samplesNs: [0, 0]).spread, 0)
    }

    func testNoSamplesAreRefused() {
        _ = refusal(.benchmark) { try Statistics(samplesNs: []) }
    }

    func testSamplesMayBeWild() throws {
        let found = try Statistics(samplesNs: [.min, .max, 0])
        XCTAssertEqual(found.p50Ns, 0)
        XCTAssertFalse(try measurement([.min, .max, 0], processes: [.max, .max, .min]).noise().isEmpty)
    }

    // MARK: - Noise

    private typealias Disturbances = LatencyRun.Measurement.Disturbances

    private typealias Noise = (
        name: String, samples: [Int], processes: [Int]?, disturbances: Disturbances?, expected: [String]
    )

    private func measurement(
        _ samples: [Int], processes: [Int]? = nil, disturbances: Disturbances? = nil
    ) throws -> LatencyRun.Measurement {
        let none = LatencyRun.Measurement.Phase(samplesNs: [])
        return LatencyRun.Measurement(
            model: .init(
                task: "classify", variant: "xformer_xxs", precision: "fp32",
                imageSize: try ImageSize(height: 64, width: 64)),
            artifact: .init(format: "onnx", sha256: String(repeating: "0", count: 64), sizeBytes: 1),
            engine: .init(name: "onnxruntime", threads: nil),
            phases: .init(
                load: none, firstRun: none, preprocess: none,
                inference: .init(samplesNs: samples, processes: processes), postprocess: none),
            disturbances: disturbances)
    }

    func testWhyTimesCannotBeReliedOn() throws {
        let calm = drawn(100, upTo: 100_000)
        let half = calm.enumerated().map { $0 < 50 ? $1 : $1 + 400_000 }
        let few = calm.enumerated().map { $0 < 90 ? $1 : $1 + 400_000 }
        let apart = "a process differs from the others by 9.8%, 5% is allowed"
        let cases: [Noise] = [
            ("calm", calm, [100], nil, []),
            ("wide", drawn(101, upTo: 1_000_000), nil, nil, []),
            (
                "too few to tell", Array(calm.prefix(3)), nil, nil,
                ["the median of 3 samples is not known at all, 3% is asked for"]
            ),
            (
                "zeros", [Int](repeating: 0, count: 20), nil, nil,
                ["the median of 20 samples is not known at all, 3% is asked for"]
            ),
            (
                "two halves", half, [50, 50], nil,
                ["the median of 100 samples is known to 3.9% only, 3% is asked for"]
            ),
            ("one outlier at each end", [900] + [Int](repeating: 1000, count: 7) + [1100], nil, nil, []),
            (
                "four of 17 at each end", (0..<17).map { $0 < 4 ? 900 : $0 < 13 ? 1000 : 1100 }, nil, nil,
                ["the median of 17 samples is known to 10.0% only, 3% is asked for"]
            ),
            ("another process", few, [90, 10], nil, [apart]),
            ("processes that do not add up", few, [90, 9], nil, []),
            ("processes without samples", few, [0, 90, 10, 0], nil, [apart]),
            ("no samples", [], nil, nil, ["there are no samples of inference"]),
            ("preempted as often as allowed", calm, nil, Disturbances(preempted: 25), []),
            (
                "preempted", calm, nil, Disturbances(preempted: 26),
                ["the system took the processor away 0.3 times a run, 0.25 are allowed"]
            ),
            (
                "unstable", calm, nil, Disturbances(unstableWarmUps: 1),
                ["the times were still changing when the warm-up was given up"]
            ),
            ("stable", calm, nil, Disturbances(unstableWarmUps: 0), []),
            (
                "hot", calm, nil, Disturbances(thermalState: "serious"), ["the thermal state was serious"]
            ),
            ("warm", calm, nil, Disturbances(thermalState: "fair"), []),
            ("nominal", calm, nil, Disturbances(thermalState: "nominal"), []),
            (
                "all at once", Array(calm.prefix(3)), nil,
                Disturbances(preempted: 3, unstableWarmUps: 1, thermalState: "critical"),
                [
                    "the median of 3 samples is not known at all, 3% is asked for",
                    "the system took the processor away 1.0 times a run, 0.25 are allowed",
                    "the times were still changing when the warm-up was given up",
                    "the thermal state was critical",
                ]
            ),
        ]
        for item in cases {
            let found = try measurement(item.samples, processes: item.processes, disturbances: item.disturbances)
            XCTAssertEqual(found.noise(), item.expected, item.name)
        }
    }
}
