import TestSupport
import XCTest

@testable import XFormerCore

final class CheckedEngineTests: XCTestCase {
    private func picture(_ width: Int = 64, _ height: Int = 64) throws -> RgbImage {
        try RgbImage(width: width, height: height, bytes: [UInt8](repeating: 0, count: 3 * width * height))
    }

    private func checked(_ engine: FakeEngine) throws -> CheckedEngine {
        CheckedEngine(engine, imageSize: try ImageSize(height: 64, width: 64), outputShapes: ["logits": [1, 3]])
    }

    private func zeros(_ shape: Int...) throws -> Tensor {
        try Tensor(shape: shape, values: [Float](repeating: 0, count: shape.reduce(1, *)))
    }

    func testOutputsThatAreNotDeclaredAreRefused() throws {
        let cases: [(name: String, outputs: Outputs, told: String)] = [
            ("none", [:], "nothing"),
            ("of another name", ["scores": try zeros(1, 3)], "scores (1, 3)"),
            ("of another shape", ["logits": try zeros(1, 4)], "logits (1, 4)"),
            ("of another rank", ["logits": try zeros(1, 3, 1)], "logits (1, 3, 1)"),
            ("one too many", ["logits": try zeros(1, 3), "more": try zeros(1, 3)], "logits (1, 3), more (1, 3)"),
        ]
        for item in cases {
            let message = refusal(.bundle, item.name) { try checked(FakeEngine { _ in item.outputs }).run(picture()) }
            XCTAssertEqual(message, "fake returned \(item.told), the manifest declares logits (1, 3)")
        }
    }

    func testAPictureOfAnotherSizeIsRefused() throws {
        let message = refusal(.image) { try checked(FakeEngine(compute: meanColor)).run(picture(128, 64)) }
        XCTAssertEqual(message, "got a picture of 64x128; the model takes 64x64")
    }

    private struct Broken: LocalizedError {
        let errorDescription: String? = "no memory\n  left"
    }

    func testAnErrorOfTheEngineItself() throws {
        let message = refusal(.engine) { try checked(FakeEngine { _ in throw Broken() }).run(picture()) }
        XCTAssertEqual(message, "fake failed: no memory left")
        _ = refusal(.bundle) { try checked(FakeEngine { _ in throw XFormerError.bundle("odd") }).run(picture()) }
        XCTAssertThrowsError(try checked(FakeEngine { _ in throw CancellationError() }).run(picture())) {
            XCTAssertTrue($0 is CancellationError)
        }
    }

    func testClosingTwiceClosesOnceAndAClosedEngineDoesNotRun() throws {
        let inner = FakeEngine(compute: meanColor)
        let engine = try checked(inner)
        _ = try engine.run(picture())
        engine.close()
        engine.close()
        XCTAssertEqual(inner.closed, 1)
        XCTAssertEqual(refusal(.usage) { try engine.run(picture()) }, "the engine is closed; open the bundle again")
        XCTAssertEqual(engine.report, inner.report)
    }

    func testThreadsTakeTurns() throws {
        let inner = FakeEngine(compute: meanColor)
        let engine = try checked(inner)
        let image = try picture()
        DispatchQueue.concurrentPerform(iterations: 40) { number in
            if number == 30 { engine.close() }
            do {
                _ = try engine.run(image)
            } catch {
                XCTAssertEqual(error as? XFormerError, .usage("the engine is closed; open the bundle again"))
            }
        }
        XCTAssertEqual(inner.misuse, [])
        XCTAssertEqual(inner.closed, 1)
    }
}
