import TestSupport
import XCTest

@testable import XFormerCore

final class PredictorTests: XCTestCase {
    private func predictor(_ engine: FakeEngine, _ task: ModelTask = .classify) throws -> Predictor {
        try withTemporaryDirectory { directory in
            try TestBundle(task).write(to: directory)
            return try Predictor(bundle: ModelBundle.open(directory), engine: engine)
        }
    }

    private func color(_ channel: Int) throws -> RgbImage {
        try RgbImage(width: 80, height: 70, bytes: (0..<3 * 80 * 70).map { $0 % 3 == channel ? 90 : 10 })
    }

    func testAPredictionAndItsTimes() throws {
        let predictor = try predictor(FakeEngine(compute: meanColor))
        let timed = try predictor.predictTimed(color(1))
        let best = try XCTUnwrap(timed.prediction.best)
        XCTAssertEqual(best.label, "dog")
        XCTAssertGreaterThan(best.probability, 0.99)
        XCTAssertTrue([timed.preprocessNs, timed.inferenceNs, timed.postprocessNs].allSatisfy { $0 >= 0 })
        XCTAssertEqual(try predictor.predict(color(1)), timed.prediction)
    }

    func testAClassMapOfThePictureSizeOrOfAPreview() throws {
        var drawn = Drawn(seed: 1)
        let outputs = ["logits": try Tensor(shape: [1, 3, 16, 16], values: drawn.floats(768))]
        let preview = PixelSize(width: 20, height: 10)
        let segmenter = try predictor(FakeEngine { _ in outputs }, .segment)
        XCTAssertEqual(try segmenter.predict(color(0)).mapSize, PixelSize(width: 80, height: 70))
        XCTAssertEqual(try segmenter.predictTimed(color(0), mapSize: preview).prediction.mapSize, preview)
        let classifier = try predictor(FakeEngine(compute: meanColor))
        XCTAssertNotNil(try classifier.predictTimed(color(0), mapSize: preview).prediction.best)
    }

    func testOutputsThatAreNotFiniteAreRefused() throws {
        let nan = ["logits": try Tensor(shape: [1, 3], values: [0, .nan, 0])]
        let predictor = try predictor(FakeEngine { _ in nan })
        let message = refusal(.bundle) { try predictor.predict(color(0)) }
        XCTAssertTrue(message.contains("NaN or infinite"), message)
    }

    func testAPredictionEndsBetweenTwoSteps() throws {
        var runs = 0
        let predictor = try predictor(
            FakeEngine { image in
                runs += 1
                return try meanColor(image)
            })
        for (step, expected) in [(1, 0), (2, 0), (3, 1)] {
            runs = 0
            var steps = 0
            XCTAssertThrowsError(
                try predictor.predictTimed(color(0)) {
                    steps += 1
                    if steps == step { throw CancellationError() }
                }
            ) { XCTAssertTrue($0 is CancellationError) }
            XCTAssertEqual(runs, expected)
        }
    }

    func testATaskThatIsCancelledEndsAsCancelled() async throws {
        let predictor = try predictor(FakeEngine(compute: meanColor))
        let image = try color(0)
        let task = Task {
            while !Task.isCancelled { await Task.yield() }
            return try predictor.predict(image)
        }
        task.cancel()
        do {
            _ = try await task.value
            XCTFail("nothing is thrown")
        } catch {
            XCTAssertTrue(error is CancellationError, "\(error)")
        }
    }

    func testManyThreadsGetTheirOwnResults() throws {
        let engine = FakeEngine(compute: meanColor)
        let predictor = try predictor(engine)
        let pictures = try (0..<3).map(color)
        DispatchQueue.concurrentPerform(iterations: 48) { number in
            let found = try? predictor.predict(pictures[number % 3])
            XCTAssertEqual(found?.best?.index, number % 3)
        }
        XCTAssertEqual(engine.misuse, [])
    }

    func testClosingWaitsForTheRun() throws {
        let started = DispatchSemaphore(value: 0)
        let release = DispatchSemaphore(value: 0)
        let engine = FakeEngine { image in
            started.signal()
            release.wait()
            return try meanColor(image)
        }
        let predictor = try predictor(engine)
        let image = try color(2)
        let predicted = expectation(description: "a result")
        let closed = expectation(description: "closed")
        Thread.detachNewThread {
            XCTAssertEqual(try? predictor.predict(image), try? predictor.expected(image))
            predicted.fulfill()
        }
        started.wait()
        Thread.detachNewThread {
            predictor.close()
            closed.fulfill()
        }
        Thread.sleep(forTimeInterval: 0.1)
        XCTAssertEqual(engine.closed, 0)
        release.signal()
        wait(for: [predicted, closed], timeout: 300)
        XCTAssertEqual(engine.closed, 1)
        XCTAssertEqual(engine.misuse, [])
        _ = refusal(.usage) { try predictor.predict(image) }
    }
}

extension Prediction {
    /// The most probable class.
    fileprivate var best: Classification? {
        guard case .classifications(let found) = self else { return nil }
        return found.first
    }

    /// Of a class map.
    fileprivate var mapSize: PixelSize? {
        guard case .classMap(let map) = self else { return nil }
        return PixelSize(width: map.width, height: map.height)
    }
}

extension Predictor {
    /// What ``meanColor(_:)`` makes of a picture.
    fileprivate func expected(_ image: RgbImage) throws -> Prediction {
        let fitted = try Preprocess.preprocess(image, target: bundle.imageSize, rule: bundle.resizeRule)
        return try bundle.postprocess()(meanColor(fitted.image), fit: fitted.fit)
    }
}
