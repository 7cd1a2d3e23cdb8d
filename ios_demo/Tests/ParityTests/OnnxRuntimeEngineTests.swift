import OnnxRuntime
import TestSupport
import XCTest
import XFormerCore

final class OnnxRuntimeEngineTests: XCTestCase {
    private func bundle(_ name: String = "classify-fp32") throws -> ModelBundle {
        try ModelBundle.open(Fixtures.directory(name))
    }

    private func picture() throws -> RgbImage {
        var random = Seeded(1)
        return try random.picture(256, 256)
    }

    func testTheReportSaysWhatIsKnown() throws {
        let engine = try OnnxRuntimeEngine(bundle: bundle(), format: .ort, threads: 2)
        defer { engine.close() }
        let version = engine.report.version
        XCTAssertEqual(try Fixtures("classify-fp32").tools["onnxruntime"], version)
        XCTAssertEqual(
            engine.report,
            EngineReport(
                engine: "onnxruntime", version: version, format: .ort, requested: "cpu", used: "cpu", threads: 2))
    }

    func testRunsDoNotDisturbEachOther() throws {
        let engine = try OnnxRuntimeEngine(bundle: bundle(), format: .onnx, threads: 1)
        defer { engine.close() }
        let black = try RgbImage(width: 256, height: 256, bytes: [UInt8](repeating: 0, count: 3 * 256 * 256))
        let first = try engine.run(picture())
        XCTAssertEqual(first["logits"]?.shape, [1, 14])
        XCTAssertNotEqual(try engine.run(black), first)
        XCTAssertEqual(try engine.run(picture()), first)
    }

    func testTwoSessionsLiveSideBySideAndClosingOneTwiceLeavesTheOther() throws {
        let first = try OnnxRuntimeEngine(bundle: bundle(), format: .onnx, threads: 1)
        let second = try OnnxRuntimeEngine(bundle: bundle(), format: .ort, threads: 1)
        let expected = try second.run(picture())
        first.close()
        first.close()
        assertRefused(try first.run(picture()), .usage("the engine is closed; open the bundle again"))
        XCTAssertEqual(try second.run(picture()), expected)
        second.close()
    }

    func testThreadsAndFormatsThatCannotBeAreRefused() throws {
        for threads in [-1, 0, 257, Int.max] {
            assertRefused(
                try OnnxRuntimeEngine(bundle: bundle(), format: .onnx, threads: threads),
                .usage("\(threads) threads are not valid; valid: 1 to 256"))
        }
        assertRefused(
            try OnnxRuntimeEngine(bundle: bundle(), format: .tflite),
            .usage("ONNX Runtime does not run tflite; it runs onnx, ort"))
    }

    func testWhatIsNoModelIsRefusedInOneLine() throws {
        let onnx = try Data(contentsOf: bundle().artifact(.onnx).url)
        let ort = try Data(contentsOf: bundle().artifact(.ort).url)
        var random = Seeded(3)
        let contents: [(name: String, format: ArtifactFormat, content: Data)] = [
            ("nothing", .onnx, Data()),
            ("noise", .onnx, Data(random.bytes(10_000))),
            ("text", .onnx, Data("this is no model".utf8)),
            ("half", .onnx, onnx.prefix(onnx.count / 2)),
            ("its beginning", .onnx, onnx.prefix(100)),
            ("all but a byte", .onnx, onnx.dropLast()),
            ("the other format", .onnx, ort),
            ("an .onnx file", .ort, onnx),
            ("half of an .ort file", .ort, ort.prefix(ort.count / 2)),
            ("the beginning of an .ort file", .ort, ort.prefix(64)),
        ]
        try withTemporaryDirectory { directory in
            let url = directory.appendingPathComponent("model")
            for (name, format, content) in contents {
                try content.write(to: url)
                assertNoModel(Artifact(format: format, url: url, sha256: "", sizeBytes: content.count), name)
            }
            let missing = directory.appendingPathComponent("missing.onnx")
            assertNoModel(Artifact(format: .onnx, url: missing, sha256: "", sizeBytes: 1), "missing")
        }
    }

    private func assertNoModel(_ artifact: Artifact, _ name: String) {
        XCTAssertThrowsError(
            try OnnxRuntimeEngine(artifact: artifact, imageSize: ImageSize(height: 256, width: 256)), name
        ) { error in
            guard case .bundle(let message)? = error as? XFormerError else { return XCTFail("\(name): \(error)") }
            XCTAssertTrue(message.hasPrefix("ONNX Runtime refuses \(artifact.url.path): "), message)
            XCTAssertFalse(message.contains("\n") || message.count > 400, message)
        }
    }

    func testAModelOfAnotherInputIsRefused() throws {
        let size = try ImageSize(height: 256, width: 320)
        assertRefused(
            try OnnxRuntimeEngine(artifact: bundle().artifact(.onnx), imageSize: size),
            .bundle(
                "the model takes elements of type 2 and shape [1, 256, 256, 3] as 'image'; the manifest declares "
                    + "uint8, which is 2, of [1, 256, 320, 3]"))
    }

    func testInt8WeightsAreUnpackedWhenTheModelIsLoadedAndTheOutputsStay() throws {
        let packed = try bundle("classify-int8-weights")
        let outputs = try [false, true].map { unpack in
            let engine = try OnnxRuntimeEngine(
                artifact: packed.artifact(.onnx), imageSize: packed.imageSize, threads: 1, unpackWeights: unpack)
            defer { engine.close() }
            return try XCTUnwrap(engine.run(picture())["logits"]).values
        }
        for (a, b) in zip(outputs[0], outputs[1]) { XCTAssertEqual(a, b, accuracy: 1e-4) }
        // It is the bundle's precision that says so.
        let said = "int8 weights are unpacked when the model is loaded"
        for (other, notes) in [(packed, [said]), (try bundle(), [])] {
            let engine = try OnnxRuntimeEngine(bundle: other, format: .onnx, threads: 1)
            XCTAssertEqual(engine.report.notes, notes)
            engine.close()
        }
    }

    private func assertRefused<Result>(
        _ call: @autoclosure () throws -> Result, _ expected: XFormerError, line: UInt = #line
    ) {
        XCTAssertThrowsError(try call(), line: line) { XCTAssertEqual($0 as? XFormerError, expected, line: line) }
    }
}
