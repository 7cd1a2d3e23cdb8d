#if os(Linux)
import CoreML
import ImageIO
import TestSupport
import XCTest
import XFormerCore

@testable import XFormerCoreML

final class XFormerTests: XCTestCase {
    private func open(_ files: ModelFiles) async throws -> XFormer {
        try await XFormer(files.bundle, options: files.options)
    }

    /// What the rules make of the double's outputs.
    private func expected(_ files: ModelFiles, _ picture: RgbImage) throws -> Prediction {
        let fitted = try Preprocess.preprocess(
            picture, target: files.bundle.imageSize, rule: files.bundle.resizeRule)
        return try files.bundle.postprocess()(files.expected(fitted.image), fit: fitted.fit)
    }

    // MARK: - Results

    func testEveryTaskAndSource() async throws {
        var random = Seeded(5)
        let stored = try random.picture(50, 30)
        for task in ModelTask.allCases {
            let files = try ModelFiles.make(task, for: self)
            let model = try await XFormer(bundle: files.bundle.directory, options: files.options)
            for number in 1...8 {
                let orientation = try XCTUnwrap(CGImagePropertyOrientation(rawValue: UInt32(number)))
                let upright = Preprocess.upright(stored, exifOrientation: number)
                let wanted = try expected(files, upright)
                let image = try Pictures.cgImage(stored)
                let frame = try pixelBuffer(stored)
                let found = [
                    try await model.predict(upright), try await model.predict(image, orientation: orientation),
                    try await model.predict(frame, orientation: orientation),
                    try await model.predictTimed(upright).prediction,
                    try await model.predictTimed(image, orientation: orientation).prediction,
                    try await model.predictTimed(frame, orientation: orientation).prediction,
                ]
                for prediction in found { XCTAssertEqual(prediction, wanted, "\(task), \(number)") }
            }
        }
    }

    func testTypedResults() async throws {
        var random = Seeded(6)
        let picture = try random.picture(20, 40)
        let image = try Pictures.cgImage(picture)
        let frame = try pixelBuffer(picture)
        let classifier = try ModelFiles.make(.classify, for: self)
        var model = try await open(classifier)
        let classes = [
            try await model.classify(picture), try await model.classify(image), try await model.classify(frame),
        ]
        let wantedClasses = try expected(classifier, picture)
        for found in classes { XCTAssertEqual(.classifications(found), wantedClasses) }
        let detector = try ModelFiles.make(.detect, for: self)
        model = try await open(detector)
        let wantedBoxes = try expected(detector, picture)
        let boxes = [try await model.detect(picture), try await model.detect(image), try await model.detect(frame)]
        for found in boxes { XCTAssertEqual(.detections(found), wantedBoxes) }
        let segmenter = try ModelFiles.make(.segment, for: self)
        model = try await open(segmenter)
        let wantedMap = try expected(segmenter, picture)
        let maps = [try await model.segment(picture), try await model.segment(image), try await model.segment(frame)]
        for found in maps { XCTAssertEqual(.classMap(found), wantedMap) }
    }

    func testAMapOfAnotherSize() async throws {
        let files = try ModelFiles.make(.segment, for: self)
        let model = try await open(files)
        let timed = try await model.predictTimed(files.picture(), mapSize: PixelSize(width: 10, height: 20))
        guard case .classMap(let map) = timed.prediction else { return XCTFail("no map") }
        XCTAssertEqual([map.width, map.height], [10, 20])
    }

    func testAnotherTaskIsAWrongCall() async throws {
        let files = try ModelFiles.make(.detect, for: self)
        let model = try await open(files)
        let message = await refusal(XFormerError.usage) { try await model.classify(files.picture()) }
        XCTAssertEqual(message, "the bundle is for the task detect, not classify; call detect or predict")
        _ = await refusal(XFormerError.usage) { try await model.segment(files.picture()) }
        XCTAssertFalse(CoreMLDouble.calls.contains(.predict))
    }

    func testAFrameFromTheMainActor() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let model = try await open(files)
        try await Self.frameFromTheMainActor(model)
    }

    @MainActor
    private static func frameFromTheMainActor(_ model: XFormer) async throws {
        let frame = try pixelBuffer(kCVPixelFormatType_32BGRA, width: 2, height: 2) { _, _, _ in }
        let found = try await model.classify(frame)
        XCTAssertFalse(found.isEmpty)
        // Still the caller's.
        XCTAssertEqual(CVPixelBufferGetWidth(frame), 2)
    }

    // MARK: - Opening and closing

    func testPrewarmRunsTheModel() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        _ = try await open(files)
        XCTAssertEqual(CoreMLDouble.calls.filter { $0 == .predict }.count, 0)
        var options = files.options
        options.prewarm = true
        let model = try await XFormer(files.bundle, options: options)
        XCTAssertEqual(CoreMLDouble.calls.filter { $0 == .predict }.count, 1)
        try await model.prewarm()
        XCTAssertEqual(CoreMLDouble.calls.filter { $0 == .predict }.count, 2)
    }

    func testWhatPrewarmingThrowsIsPassedOn() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        CoreMLDouble.predict = { _ in throw MLModelError(.generic, "cold") }
        var options = files.options
        options.prewarm = true
        let message = await refusal(XFormerError.engine) { try await XFormer(files.bundle, options: options) }
        XCTAssertEqual(message, "Core ML failed: cold")
    }

    func testAClosedModelIsRefused() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let model = try await open(files)
        await model.close()
        await model.close()
        _ = await refusal(XFormerError.usage) { try await model.classify(files.picture()) }
    }

    func testNoBundleIsRefused() async throws {
        let nowhere = URL(fileURLWithPath: "/nowhere")
        _ = await refusal(XFormerError.bundle) { try await XFormer(bundle: nowhere) }
    }

    func testADamagedArtifactIsRefused() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let artifact = try files.bundle.artifact(.coreml)
        try Data([1]).write(to: artifact.url.appendingPathComponent("more"))
        let message = await refusal(XFormerError.bundle) { try await self.open(files) }
        XCTAssertTrue(message.contains("sha256"), message)
        XCTAssertEqual(CoreMLDouble.calls, [])
    }

    // MARK: - Tasks

    func testManyTasksTakeTurns() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let model = try await open(files)
        let pictures = try (0..<10).map { try files.picture($0) }
        try await withThrowingTaskGroup(of: (Int, Prediction).self) { group in
            for (index, picture) in pictures.enumerated() {
                group.addTask { (index, try await model.predict(picture)) }
            }
            for try await (index, found) in group { XCTAssertEqual(found, try expected(files, pictures[index])) }
        }
    }

    func testACancelledCallThatWaitsDoesNothing() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let model = try await open(files)
        let gate = Gate()
        CoreMLDouble.predict = { _ in
            gate.enter()
            throw MLModelError(.generic, "let go")
        }
        let picture = try files.picture()
        let first = Task { try await model.predict(picture) }
        await gate.isEntered()
        let second = Task { try await model.predict(picture) }
        second.cancel()
        gate.open()
        await assertCancelled(second)
        _ = await refusal(XFormerError.engine) { try await first.value }
        XCTAssertEqual(CoreMLDouble.calls.filter { $0 == .predict }.count, 1)
    }

    func testACallThatIsCancelledWhileTheModelRunsEndsAfterIt() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let model = try await open(files)
        let gate = Gate()
        CoreMLDouble.predict = { _ in
            gate.enter()
            let shape = files.bundle.outputShapes["logits"] ?? []
            // Without the cancellation, this would be an error of the bundle.
            let array = MLMultiArray(
                shape: shape, values: [Float](repeating: .nan, count: shape.reduce(1, *)), dataType: .float32)
            return ["logits": MLFeatureValue(multiArray: array)]
        }
        let picture = try files.picture()
        let call = Task { try await model.predict(picture) }
        await gate.isEntered()
        call.cancel()
        gate.open()
        await assertCancelled(call)
        CoreMLDouble.predict = nil
        let next = try await model.predict(picture)
        XCTAssertEqual(next, try expected(files, picture))
    }

    func testClosingWaitsForTheRun() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let model = try await open(files)
        let gate = Gate()
        CoreMLDouble.predict = { _ in
            gate.enter()
            throw MLModelError(.generic, "let go")
        }
        let picture = try files.picture()
        let call = Task { try await model.predict(picture) }
        await gate.isEntered()
        let closing = Task { await model.close() }
        gate.open()
        _ = await refusal(XFormerError.engine) { try await call.value }
        await closing.value
        _ = await refusal(XFormerError.usage) { try await model.predict(picture) }
    }

    private func assertCancelled(_ task: Task<Prediction, any Error>) async {
        do {
            _ = try await task.value
            XCTFail("it was not cancelled")
        } catch {
            XCTAssertTrue(error is CancellationError, "\(error)")
        }
    }
}
#endif
