#if os(Linux)
import CoreML
import TestSupport
import XCTest
import XFormerCore

@testable import XFormerCoreML

final class CoreMLEngineTests: XCTestCase {
    private func open(_ files: ModelFiles, _ units: ComputeUnits = .all) async throws -> CoreMLEngine {
        try await CoreMLEngine.open(files.bundle, computeUnits: units, models: files.models)
    }

    // MARK: - Outputs

    func testTypesAndStridesAreReadAsTheyAre() async throws {
        let types: [(String, Float)] = [("float32", 0), ("float16", 5e-3), ("double", 0)]
        for task in ModelTask.allCases {
            for (type, accuracy) in types {
                for (padding, spacing) in [(0, 1), (5, 1), (3, 2)] {
                    let files = try ModelFiles.make(task, for: self) { model in
                        for index in model.outputs.indices {
                            model.outputs[index].dataType = type
                            model.outputs[index].padding = padding
                            model.outputs[index].spacing = spacing
                        }
                    }
                    let picture = try files.picture()
                    let found = try await open(files).run(picture)
                    for (name, wanted) in try files.expected(picture) {
                        let output = try XCTUnwrap(found[name])
                        XCTAssertEqual(output.shape, wanted.shape)
                        for (a, b) in zip(output.values, wanted.values) {
                            XCTAssertEqual(a, b, accuracy: accuracy, "\(task) \(type) \(padding) \(spacing) \(name)")
                        }
                    }
                    XCTAssertEqual(found.count, files.bundle.outputShapes.count)
                }
            }
        }
    }

    func testEveryHalfIsItsFloat() {
        for bits in UInt16.min...UInt16.max {
            let wanted = Float(Float16(bitPattern: bits))
            let found = float(ofHalf: bits)
            XCTAssertTrue(found == wanted && found.sign == wanted.sign || found.isNaN && wanted.isNaN, "\(bits)")
        }
    }

    func testNotFiniteOutputsAreAnErrorOfTheBundle() async throws {
        for value in [Float.nan, .infinity] {
            let files = try ModelFiles.make(.classify, for: self)
            CoreMLDouble.predict = { _ in
                let shape = files.bundle.outputShapes["logits"] ?? []
                let values = [Float](repeating: value, count: shape.reduce(1, *))
                let array = MLMultiArray(shape: shape, values: values, dataType: .float16)
                return ["logits": MLFeatureValue(multiArray: array)]
            }
            let model = try await XFormer(files.bundle, options: files.options)
            let message = await refusal(XFormerError.bundle) { try await model.classify(files.picture()) }
            XCTAssertTrue(message.contains("logits"), message)
        }
    }

    func testAMissingOutputIsRefused() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let engine = try await open(files)
        CoreMLDouble.predict = { _ in ["classLabel": MLFeatureValue(string: "cat")] }
        XCTAssertEqual(
            refusal(XFormerError.bundle) { try engine.run(files.picture()) },
            "Core ML returned no array 'logits' but [\"classLabel\"]; the manifest declares it")
        CoreMLDouble.predict = { _ in ["logits": MLFeatureValue(string: "cat")] }
        _ = refusal(XFormerError.bundle) { try engine.run(files.picture()) }
    }

    func testOutputsOfIntegersAreRefused() async throws {
        let files = try ModelFiles.make(.classify, for: self) { $0.outputs[0].dataType = "int32" }
        let engine = try await open(files)
        XCTAssertEqual(
            refusal(XFormerError.bundle) { try engine.run(files.picture()) },
            "Core ML returned 'logits' with the data type 131104; floats are needed")
    }

    func testAnotherShapeIsRefused() async throws {
        let files = try ModelFiles.make(.classify, for: self) { $0.outputs[0].shape = [1, 17] }
        let model = try await XFormer(files.bundle, options: files.options)
        let message = await refusal(XFormerError.bundle) { try await model.classify(files.picture()) }
        XCTAssertTrue(message.contains("(1, 17)"), message)
    }

    // MARK: - Opening

    func testAnotherInputIsRefused() async throws {
        let edits: [(String, (inout DoubleModel) -> Void)] = [
            ("an image of 64x128", { $0.width = 128 }),
            ("no image", { $0.takesImage = false }),
            ("2 inputs", { $0.inputs = ["image", "mask"] }),
            ("0 inputs", { $0.inputs = [] }),
            ("no array 'logits' among its outputs", { $0.outputs[0].name = "scores" }),
        ]
        for (words, edit) in edits {
            let files = try ModelFiles.make(.classify, for: self, edit: edit)
            let message = await refusal(XFormerError.bundle) { try await self.open(files) }
            XCTAssertTrue(message.contains(words), message)
        }
    }

    func testTheInputMayHaveAnyName() async throws {
        let files = try ModelFiles.make(.classify, for: self) { $0.inputs = ["picture"] }
        let picture = try files.picture()
        let found = try await open(files).run(picture)
        XCTAssertEqual(found, try files.expected(picture))
    }

    func testTheReport() async throws {
        let files = try ModelFiles.make(.segment, for: self)
        for units in ComputeUnits.allCases {
            let report = try await open(files, units).report
            XCTAssertEqual(report.engine, "coreml")
            XCTAssertEqual(report.format, .coreml)
            XCTAssertEqual(report.requested, units.rawValue)
            XCTAssertEqual(report.used, units == .cpuOnly ? "cpu-only" : nil)
            XCTAssertEqual(report.notes.isEmpty, units == .cpuOnly)
            XCTAssertNil(report.threads)
        }
        let loads = CoreMLDouble.calls.filter { if case .load = $0 { true } else { false } }
        XCTAssertEqual(loads, [.load(.all), .load(.cpuOnly), .load(.cpuAndGPU), .load(.cpuAndNeuralEngine)])
    }

    func testNoMemoryForThePictureIsAnErrorOfTheEngine() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        CoreVideoDouble.createFailure = kCVReturnAllocationFailed
        let message = await refusal(XFormerError.engine) { try await self.open(files) }
        XCTAssertTrue(message.contains("-6662"), message)
    }

    func testABundleWithoutCoreML() async throws {
        let root = FileManager.default.temporaryDirectory.appendingPathComponent("xformer-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: root) }
        try TestBundle(.classify).write(to: root)
        let message = await refusal(XFormerError.usage) { try await XFormer(bundle: root) }
        XCTAssertTrue(message.contains("has no coreml artifact"), message)
    }

    // MARK: - Running

    func testWhatCoreMLThrowsIsAnErrorOfTheEngineInOneLine() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let engine = try await open(files)
        CoreMLDouble.predict = { _ in throw MLModelError(.generic, "Unable to compute\n  the  prediction.") }
        XCTAssertEqual(
            refusal(XFormerError.engine) { try engine.run(files.picture()) },
            "Core ML failed: Unable to compute the prediction.")
        CoreMLDouble.predict = nil
        XCTAssertEqual(try engine.run(files.picture()), try files.expected(files.picture()))
    }

    func testAPictureOfAnotherSizeIsRefused() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let engine = try await open(files)
        let small = try RgbImage(width: 1, height: 1, bytes: [1, 2, 3])
        XCTAssertEqual(
            refusal(XFormerError.image) { try engine.run(small) }, "got a picture of 1x1; the model takes 64x64")
    }

    func testABufferThatCannotBeLockedIsAnErrorOfTheEngine() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let engine = try await open(files)
        CoreVideoDouble.lockFailure = kCVReturnError
        _ = refusal(XFormerError.engine) { try engine.run(files.picture()) }
    }

    func testAClosedEngineIsRefused() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let engine = try await open(files)
        engine.close()
        engine.close()
        _ = refusal(XFormerError.usage) { try engine.run(files.picture()) }
    }

    func testManyThreadsTakeTurns() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let engine = try await open(files)
        let pictures = try (0..<8).map { try files.picture($0) }
        try await withThrowingTaskGroup(of: (Int, Outputs).self) { group in
            for (index, picture) in pictures.enumerated() {
                group.addTask { (index, try engine.run(picture)) }
            }
            for try await (index, outputs) in group {
                XCTAssertEqual(outputs, try files.expected(pictures[index]))
            }
        }
    }

    func testThePictureReachesTheModelInItsColors() async throws {
        let files = try ModelFiles.make(.segment, for: self)
        let engine = try await open(files)
        let picture = try RgbImage(
            width: 64, height: 64, bytes: (0..<3 * 64 * 64).map { UInt8([200, 100, 7][$0 % 3]) })
        CoreMLDouble.predict = { buffer in
            CVPixelBufferLockBaseAddress(buffer, .readOnly)
            defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
            let start = CVPixelBufferGetBaseAddress(buffer)?.assumingMemoryBound(to: UInt8.self)
            let last = 63 * CVPixelBufferGetBytesPerRow(buffer) + 4 * 63
            XCTAssertEqual((0..<4).map { start?[last + $0] }, [7, 100, 200, 255])
            throw MLModelError(.generic, "seen")
        }
        XCTAssertEqual(refusal(XFormerError.engine) { try engine.run(picture) }, "Core ML failed: seen")
    }
}
#endif
