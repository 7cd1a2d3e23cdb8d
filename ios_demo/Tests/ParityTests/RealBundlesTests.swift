import OnnxRuntime
import TestSupport
import XCTest
import XFormerCore

/// The replay of golden cases can fail on real bundles, and the benchmark measures them. That the replay passes for
/// every bundle, ``ParityTests`` says.
final class RealBundlesTests: XCTestCase {
    private func replay(_ bundle: ModelBundle) throws -> ParityResult {
        let engine = try OnnxRuntimeEngine(bundle: bundle, format: .onnx, threads: 1)
        defer { engine.close() }
        return try GoldenReplay.run(bundle, format: .onnx, engine: engine, decode: decodePng)
    }

    /// A copy of a bundle with only its .onnx file, after a change of its files and of the manifest's text.
    private func changed<Result>(
        _ name: String, _ change: (URL, inout String) throws -> Void, test: (ModelBundle) throws -> Result
    ) throws -> Result {
        try withTemporaryDirectory { directory in
            let copy = directory.appendingPathComponent(name)
            try FileManager.default.copyItem(at: Fixtures.directory(name), to: copy)
            let manifest = copy.appendingPathComponent("manifest.json")
            var text = try String(contentsOf: manifest, encoding: .utf8)
            try change(copy, &text)
            try Data(text.utf8).write(to: manifest)
            return try test(ModelBundle.open(copy))
        }
    }

    /// Puts the model of another bundle in the place of this one, under its sum.
    private func exchange(_ name: String, in copy: URL, _ text: inout String) throws {
        let other = try ModelBundle.open(Fixtures.directory(name)).artifact(.onnx)
        let own = try ModelBundle.open(copy).artifact(.onnx)
        try Data(contentsOf: other.url).write(to: own.url)
        text = text.replacingOccurrences(of: own.sha256, with: other.sha256)
    }

    func testTheWeightsOfAnotherPrecisionAreFoundOutByTheNumbers() throws {
        let result = try changed("classify-fp32") {
            try exchange("classify-int8", in: $0, &$1)
        } test: {
            try replay($0)
        }
        let miss = try XCTUnwrap(result.misses.first)
        XCTAssertTrue(miss.hasPrefix("logits differs by ") && miss.hasSuffix(" of its range, 1e-04 is allowed"), miss)
    }

    func testWhatBelongsToAnotherPictureIsFoundOutInInt8Too() throws {
        // The pictures stay; what the reference model returns for them goes one picture further.
        let result = try changed("classify-int8") { copy, text in
            let files = try ModelBundle.open(copy).manifest.golden.compactMap { $0.outputs["logits"] }
            for (index, file) in files.enumerated() {
                text = text.replacingOccurrences(of: "\"\(file.file)\"", with: "\"file \(index)\"")
                text = text.replacingOccurrences(of: file.sha256, with: "sha256 \(index)")
            }
            for index in files.indices {
                let next = files[(index + 1) % files.count]
                text = text.replacingOccurrences(of: "\"file \(index)\"", with: "\"\(next.file)\"")
                text = text.replacingOccurrences(of: "sha256 \(index)", with: next.sha256)
            }
        } test: {
            try replay($0)
        }
        XCTAssertEqual(result.misses.count, 1)
        XCTAssertTrue(result.misses.allSatisfy { $0.hasSuffix("3 dB needed") }, "\(result.misses)")
    }

    func testAnotherTaskUnderTheSameLabelsIsFoundOutByItsOutputs() throws {
        XCTAssertThrowsError(
            try changed("classify-int8") {
                try exchange("detect-int8", in: $0, &$1)
            } test: {
                try replay($0)
            }
        ) { error in
            guard case .bundle(let message)? = error as? XFormerError else { return XCTFail("\(error)") }
            XCTAssertTrue(message.contains("stride8 ("), message)
            XCTAssertTrue(message.hasSuffix("the manifest declares logits (1, 14)"), message)
        }
    }

    func testAModelThatWasExchangedWithoutTheManifestIsNotOpened() throws {
        XCTAssertThrowsError(
            try changed("classify-int8") { copy, text in
                var other = text
                try exchange("segment-int8", in: copy, &other)
            } test: {
                try replay($0)
            }
        ) { error in
            XCTAssertTrue("\(error)".contains("it was changed, truncated or exchanged"), "\(error)")
        }
    }

    /// Writes .build/latency-run.json, which `xformer-bench show` reads.
    func testABenchmarkOfEachTask() throws {
        let machine = try LatencyRun.Machine(id: "0123456789abcdef", system: "Linux", architecture: "x86_64")
        let settings = try BenchmarkSettings(runs: 10, phaseRuns: 5, maxWarmUps: 2)
        for task in ModelTask.allCases {
            let bundle = try ModelBundle.open(Fixtures.directory("\(task.rawValue)-fp32"))
            let run = try Benchmark.measure(bundle, format: .onnx, machine: machine, settings: settings) {
                try OnnxRuntimeEngine(bundle: bundle, format: .onnx, threads: 1)
            }
            let measured = try XCTUnwrap(run.measurements.first)
            XCTAssertEqual(measured.statistics().map(\.statistics.count), [1, 1, 5, 10, 5])
            XCTAssertTrue(measured.statistics().allSatisfy { $0.statistics.minNs > 0 })
            try writeReport("latency-run-\(task.rawValue).json", run.json())
        }
    }
}
