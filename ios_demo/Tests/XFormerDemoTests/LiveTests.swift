import Foundation
import XCTest
import XFormerCore

@testable import XFormerDemo

final class FrameMeterTests: XCTestCase {
    func testRateAndMedian() {
        var meter = FrameMeter()
        XCTAssertNil(meter.framesPerSecond)
        XCTAssertNil(meter.medianInferenceNs)
        for number in 0..<40 { meter.add(finishedNs: 50_000_000 * number, inferenceNs: number) }
        XCTAssertEqual(meter.framesPerSecond, 20)
        XCTAssertEqual(meter.medianInferenceNs, 24.5)
        meter.reset()
        XCTAssertNil(meter.framesPerSecond)
    }

    func testAClockThatStandsGivesNoRate() {
        var meter = FrameMeter()
        meter.add(finishedNs: 7, inferenceNs: 1)
        meter.add(finishedNs: 7, inferenceNs: 1)
        XCTAssertNil(meter.framesPerSecond)
    }
}

final class CameraGeometryTests: XCTestCase {
    func testOrientations() {
        let expected: [(CameraGeometry.Rotation, UInt32)] = [(.none, 1), (.quarter, 6), (.half, 3), (.threeQuarters, 8)]
        for (rotation, orientation) in expected {
            for isFront in [false, true] {
                let geometry = CameraGeometry(rotation: rotation, isFront: isFront)
                XCTAssertEqual(geometry.orientation.rawValue, orientation)
            }
        }
    }

    func testUprightSize() {
        let buffer = PixelSize(width: 1280, height: 720)
        for rotation in CameraGeometry.Rotation.allCases {
            let upright = CameraGeometry(rotation: rotation, isFront: false).upright(buffer)
            let isTurned = rotation == .quarter || rotation == .threeQuarters
            XCTAssertEqual(upright, isTurned ? PixelSize(width: 720, height: 1280) : buffer)
        }
    }

    func testDegrees() {
        let cases: [(Double, CameraGeometry.Rotation)] = [
            (0, .none), (90, .quarter), (180, .half), (270, .threeQuarters), (360, .none), (-90, .threeQuarters),
            (89.9, .quarter), (.nan, .none), (.infinity, .none), (1e300, .none),
        ]
        for (degrees, rotation) in cases { XCTAssertEqual(CameraGeometry.Rotation(degrees: degrees), rotation) }
    }

    func testFrontCameraTurnsTheOtherWay() {
        typealias Rotation = CameraGeometry.Rotation
        for interface in Rotation.Interface.allCases {
            let back = Rotation(interface: interface, isFront: false).rawValue
            let front = Rotation(interface: interface, isFront: true).rawValue
            XCTAssertEqual((back + front) % 180, 0, "\(interface)")
        }
        XCTAssertEqual(Rotation(interface: .portrait, isFront: false), .quarter)
        XCTAssertEqual(Rotation(interface: .landscapeRight, isFront: false), Rotation.none)
        XCTAssertEqual(Rotation(interface: .landscapeLeft, isFront: true), Rotation.none)
    }
}

final class CameraProblemTests: XCTestCase {
    func testEachHasWordsOfItsOwnAndARemedy() {
        XCTAssertEqual(Set(CameraProblem.allCases.map(\.text)).count, CameraProblem.allCases.count)
        XCTAssertEqual(CameraProblem.notAsked.remedy, .allowCamera)
        XCTAssertEqual(CameraProblem.refused.remedy, .openSettings)
        XCTAssertEqual(CameraProblem.restricted.remedy, .openPicture)
    }
}

@MainActor
final class AnalyzerTests: XCTestCase, @unchecked Sendable {
    func testTheNewestFrameIsNextAndOlderOnesAreDropped() async throws {
        let (gate, open) = AsyncStream.makeStream(of: Void.self)
        var delivered: [Int] = []
        let analyzer = Analyzer<Int, Int>(
            analyze: { frame in
                if frame == 1 { for await _ in gate { break } }
                return frame
            },
            deliver: { if case .success(let frame) = $0 { delivered.append(frame) } })
        analyzer.offer(1)
        try await Task.sleep(nanoseconds: 50_000_000)
        for frame in 2...5 { analyzer.offer(frame) }
        open.yield()
        try await eventually { delivered.last == 5 }
        XCTAssertEqual(delivered.filter { (2...4).contains($0) }.count, 0)
        analyzer.close()
    }

    func testFailuresAreDelivered() async throws {
        var failures = 0
        let analyzer = Analyzer<Int, Int>(
            analyze: { _ in throw XFormerError.image("dark") },
            deliver: { if case .failure = $0 { failures += 1 } })
        analyzer.offer(1)
        try await eventually { failures == 1 }
        analyzer.close()
    }

    func testNothingIsDeliveredAfterItIsClosed() async throws {
        var delivered = 0
        let (started, begin) = AsyncStream.makeStream(of: Void.self)
        let closed = DispatchSemaphore(value: 0)
        let (ended, end) = AsyncStream.makeStream(of: Void.self)
        let analyzer = Analyzer<Int, Int>(
            analyze: { frame in
                begin.yield()
                // Not even an analysis that knows nothing of cancellation.
                await withCheckedContinuation { continuation in
                    DispatchQueue.global().async {
                        closed.wait()
                        continuation.resume()
                    }
                }
                end.yield()
                return frame
            }, deliver: { _ in delivered += 1 })
        analyzer.offer(1)
        for await _ in started { break }
        analyzer.close()
        analyzer.offer(2)
        closed.signal()
        for await _ in ended { break }
        try await Task.sleep(nanoseconds: 20_000_000)
        XCTAssertEqual(delivered, 0)
    }
}

@MainActor
final class LiveStateTests: XCTestCase, @unchecked Sendable {
    private let clock = FakeClock()

    private func state(
        _ camera: FakeCamera, model: FakeModel = FakeModel(), refusal: XFormerError? = nil
    ) -> (LiveState, ModelSlot) {
        let slot = ModelSlot { _ in
            if let refusal { throw refusal }
            return model
        }
        let state = LiveState(
            camera: camera, models: slot, choice: { Choice() }, problem: { "no model: \($0)" }, clock: clock)
        return (state, slot)
    }

    func testWhatIsMissingIsSaidInWords() async {
        let cases: [(FakeCamera, CameraProblem)] = [
            (FakeCamera(.notAsked), .notAsked), (FakeCamera(.refused), .refused),
            (FakeCamera(.restricted), .restricted), (FakeCamera(sides: []), .noCamera),
        ]
        for (camera, problem) in cases {
            let (state, _) = state(camera)
            XCTAssertNil(state.message)
            state.appear()
            XCTAssertEqual(state.message, Message(text: problem.text, remedy: problem.remedy))
            XCTAssertEqual(camera.starts, [])
        }
    }

    func testAnAnswerStartsTheCamera() async {
        let camera = FakeCamera(.notAsked, afterAsking: .allowed)
        let (state, _) = state(camera)
        state.appear()
        await state.askForCamera()
        XCTAssertNil(state.message)
        XCTAssertEqual(camera.starts, [.back])
        let refusing = FakeCamera(.notAsked, afterAsking: .refused)
        let (other, _) = self.state(refusing)
        other.appear()
        await other.askForCamera()
        XCTAssertEqual(other.message?.remedy, .openSettings)
    }

    func testFramesBecomeResults() async throws {
        let found = Prediction.classifications([Classification(index: 0, label: "cat", probability: 0.9)])
        let camera = FakeCamera()
        let (state, slot) = state(camera, model: FakeModel(weights: .sample, answer: .success(found)))
        state.appear()
        XCTAssertEqual(state.figures, Words.modelOpening)
        await slot.settled()
        XCTAssertEqual(state.banner, Words.bannerSample)
        camera.events?(.frame(try frame(front: true)))
        try await eventually { state.result != nil }
        XCTAssertEqual(state.result?.drawing.prediction, found)
        XCTAssertEqual(state.result?.drawing.isMirrored, true)
        XCTAssertEqual(state.result?.drawing.source, PixelSize(width: 2, height: 4))
        clock.advance(100_000_000)
        camera.events?(.frame(try frame()))
        try await eventually { state.result?.drawing.isMirrored == false }
        XCTAssertTrue(state.figures.hasSuffix("10 frames a second · inference 2.0 ms"), state.figures)
    }

    func testAFailureIsSaid() async throws {
        let camera = FakeCamera()
        let (state, slot) = state(camera, model: FakeModel(answer: .failure(XFormerError.bundle("NaN"))))
        state.appear()
        await slot.settled()
        camera.events?(.frame(try frame()))
        try await eventually { state.figures == "This did not work: NaN" }
        XCTAssertNil(state.result)
    }

    func testABrokenBundleIsSaidAndLeadsToTheSetup() async {
        let (state, slot) = state(FakeCamera(), refusal: .bundle("broken"))
        state.appear()
        await slot.settled()
        XCTAssertEqual(state.message, Message(text: "no model: broken", remedy: .openSetup))
    }

    func testTheBackgroundTakesCameraAndModel() async {
        let camera = FakeCamera()
        let model = FakeModel()
        let (state, slot) = state(camera, model: model)
        state.appear()
        await slot.settled()
        state.setInFront(false)
        await slot.settled()
        XCTAssertEqual(camera.timesStopped, 1)
        XCTAssertEqual(model.timesClosed, 1)
        state.setInFront(true)
        await slot.settled()
        XCTAssertEqual(camera.starts.count, 2)
        XCTAssertNotNil(slot.state.model)
        state.disappear()
        await slot.settled()
        XCTAssertEqual(model.timesClosed, 2)
        state.disappear()
        XCTAssertEqual(camera.timesStopped, 2)
    }

    func testInterruptionsComeAndGo() async throws {
        let camera = FakeCamera()
        let (state, _) = state(camera)
        state.appear()
        camera.events?(.problem(.inUse))
        try await eventually { state.message?.text == Words.cameraInUse }
        camera.events?(.resumed)
        try await eventually { state.message == nil }
        camera.events?(.problem(.failed))
        try await eventually { state.message != nil }
        state.tryAgain()
        XCTAssertNil(state.message)
        XCTAssertEqual(camera.starts.count, 2)
    }

    func testWhatAnOlderSessionTellsIsNoNews() async throws {
        let camera = FakeCamera()
        let (state, _) = state(camera)
        state.appear()
        let old = camera.events
        state.switchCamera()
        XCTAssertEqual(camera.starts, [.back, .front])
        old?(.problem(.failed))
        for _ in 0..<50 { await Task.yield() }
        try await Task.sleep(nanoseconds: 20_000_000)
        XCTAssertNil(state.message)
    }

    func testOnlyOneCamera() async {
        let camera = FakeCamera(sides: [.front])
        let (state, _) = state(camera)
        state.appear()
        XCTAssertEqual(camera.starts, [.front])
        XCTAssertFalse(state.hasOtherCamera)
    }

    func testShortOfMemoryTheModelIsClosedUntilItIsAskedFor() async {
        let model = FakeModel()
        let (state, slot) = state(FakeCamera(), model: model)
        state.memoryWarning()
        XCTAssertNil(state.message)
        state.appear()
        await slot.settled()
        state.memoryWarning()
        await slot.settled()
        XCTAssertEqual(model.timesClosed, 1)
        XCTAssertEqual(state.message, Message(text: Words.memoryFull, remedy: .tryAgain))
        state.tryAgain()
        await slot.settled()
        XCTAssertNil(state.message)
        XCTAssertNotNil(slot.state.model)
    }

    func testHeatIsSaid() async {
        let (state, _) = state(FakeCamera())
        let expected: [(ThermalState, String?)] = [
            (.nominal, nil), (.fair, nil), (.serious, Words.heatSerious), (.critical, Words.heatCritical),
            (.nominal, nil),
        ]
        for (heat, notice) in expected {
            state.setHeat(heat)
            XCTAssertEqual(state.heatNotice, notice)
        }
    }
}

@MainActor
final class FrameGateTests: XCTestCase, @unchecked Sendable {
    func testHeatLetsFewerFramesThrough() async throws {
        let clock = FakeClock()
        let gate = FrameGate(clock: clock)
        var delivered = 0
        gate.open(
            to: Analyzer(
                analyze: { frame in
                    LiveResult(
                        drawing: try Drawing(
                            source: frame.uprightSize, isMirrored: false, prediction: .classifications([]),
                            palette: []),
                        inferenceNs: 1)
                }, deliver: { _ in delivered += 1 }))
        func offer(expecting expected: Int) async throws {
            gate.offer(try frame())
            if expected > delivered { try await eventually { delivered == expected } }
            try await Task.sleep(nanoseconds: 10_000_000)
            XCTAssertEqual(delivered, expected)
        }
        try await offer(expecting: 1)
        gate.setHeat(.serious)
        try await offer(expecting: 2)
        clock.advance(249_000_000)
        try await offer(expecting: 2)
        clock.advance(1_000_000)
        try await offer(expecting: 3)
        gate.setHeat(.critical)
        clock.advance(10_000_000_000)
        try await offer(expecting: 3)
        gate.setHeat(.fair)
        try await offer(expecting: 4)
        gate.open(to: nil)
        try await offer(expecting: 4)
    }
}
