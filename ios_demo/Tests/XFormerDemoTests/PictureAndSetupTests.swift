import Foundation
import XCTest

@testable import XFormerCore
@testable import XFormerCoreML
@testable import XFormerDemo

@MainActor
final class PictureStateTests: XCTestCase, @unchecked Sendable {
    private let found = Prediction.classifications([Classification(index: 0, label: "cat", probability: 0.9)])

    private func state(model: FakeModel, refusal: XFormerError? = nil) -> PictureState {
        PictureState(
            models: ModelSlot { _ in
                if let refusal { throw refusal }
                return model
            }, choice: { Choice() }, problem: { "no model: \($0)" },
            decode: { content in
                if content.isEmpty { throw XFormerError.image("empty") }
                let image = try RgbImage(width: 3, height: 2, bytes: [UInt8](repeating: 9, count: 18))
                return Picture(image: try Pictures.cgImage(image), orientation: .right)
            })
    }

    func testAPictureIsShownAndTheModelFreed() async throws {
        let model = FakeModel(weights: .untrained, answer: .success(found))
        let state = state(model: model)
        guard case .empty = state.phase else { return XCTFail("\(state.phase)") }
        state.look { Data([1]) }
        guard case .working = state.phase else { return XCTFail("\(state.phase)") }
        await state.settled()
        guard case .shown(let shown) = state.phase else { return XCTFail("\(state.phase)") }
        XCTAssertEqual(shown.drawing.prediction, found)
        XCTAssertEqual(shown.drawing.source, PixelSize(width: 2, height: 3))
        XCTAssertEqual(shown.banner, Words.bannerUntrained)
        XCTAssertTrue(shown.figures.hasSuffix("picture 2 × 3 · inference 2.0 ms"), shown.figures)
        try await eventually { model.timesClosed == 1 }
    }

    func testWhatGoesWrongIsSaid() async {
        let cases: [(PictureState, @Sendable () async throws -> Data?, String)] = [
            (state(model: FakeModel()), { nil }, "The picture can't be used: Its file can't be read."),
            (state(model: FakeModel()), { Data() }, "The picture can't be used: empty"),
            (state(model: FakeModel()), { throw XFormerError.image("gone") }, "The picture can't be used: gone"),
            (state(model: FakeModel(), refusal: .bundle("broken")), { Data([1]) }, "no model: broken"),
            (
                state(model: FakeModel(answer: .failure(XFormerError.bundle("NaN")))), { Data([1]) },
                "The picture can't be used: NaN"
            ),
        ]
        for (state, load, expected) in cases {
            state.look(load: load)
            await state.settled()
            guard case .failed(let text) = state.phase else { return XCTFail("\(state.phase)") }
            XCTAssertEqual(text, expected)
        }
    }

    func testANewerPictureTakesThePlace() async {
        let state = state(model: FakeModel(answer: .success(found)))
        state.look { throw XFormerError.image("old") }
        state.look { Data([1]) }
        await state.settled()
        guard case .shown = state.phase else { return XCTFail("\(state.phase)") }
    }

    func testStoppingIsSaidAndAResultStays() async {
        let state = state(model: FakeModel(answer: .success(found)))
        state.stop(Words.pictureLeft)
        guard case .empty = state.phase else { return XCTFail("\(state.phase)") }
        state.look { Data([1]) }
        state.stop(Words.pictureMemory)
        await state.settled()
        guard case .failed(Words.pictureMemory) = state.phase else { return XCTFail("\(state.phase)") }
        state.look { Data([1]) }
        await state.settled()
        state.stop(Words.pictureLeft)
        guard case .shown = state.phase else { return XCTFail("\(state.phase)") }
    }

    func testMapSizes() async {
        let cases = [(4, 2, 4, 2), (4096, 2048, 1024, 512), (1, 100_000, 1, 1024), (1, 1, 1, 1)]
        for (width, height, mapWidth, mapHeight) in cases {
            XCTAssertEqual(
                PictureState.mapSize(of: PixelSize(width: width, height: height)),
                PixelSize(width: mapWidth, height: mapHeight))
        }
    }
}

@MainActor
final class SetupStateTests: XCTestCase, @unchecked Sendable {
    /// Lives as long as the test.
    private var directories: [Directory] = []

    private func made() throws -> (SetupState, Directory, Directory, () -> Choice?) {
        let (inApp, own) = (try Directory(), try Directory())
        _ = try inApp.bundle("classify")
        _ = try inApp.bundle("detect", task: .detect)
        directories += [inApp, own]
        var kept: Choice?
        let state = SetupState(
            bundles: BundleStore(builtIn: inApp.url, imported: own.url), choice: Choice(bundle: "gone")
        ) { kept = $0 }
        return (state, inApp, own, { kept })
    }

    func testAChoiceThatIsGoneIsForgotten() async throws {
        let (state, _, _, kept) = try made()
        XCTAssertNil(state.rows)
        state.refresh()
        await state.settled()
        XCTAssertEqual(state.rows?.map(\.bundle.name), ["classify", "detect"])
        XCTAssertEqual(state.rows?.map(\.isChosen), [true, false])
        XCTAssertEqual(state.rows?[0].details?.hasPrefix("classify, 64x64, "), true)
        XCTAssertNil(state.rows?[1].details)
        XCTAssertEqual(kept(), Choice())
    }

    func testChoosing() async throws {
        let (state, _, _, kept) = try made()
        state.refresh()
        await state.settled()
        let detect = try XCTUnwrap(state.rows?[1].bundle)
        state.choose(detect)
        state.choose(.cpuOnly)
        await state.settled()
        XCTAssertEqual(kept(), Choice(bundle: "detect", units: .cpuOnly))
        XCTAssertEqual(state.chosen, detect)
    }

    func testABrokenBundleIsSaid() async throws {
        let (state, inApp, _, _) = try made()
        try Data("{".utf8).write(to: inApp.url.appendingPathComponent("classify/manifest.json"))
        state.refresh()
        await state.settled()
        XCTAssertEqual(state.rows?[0].details?.hasPrefix("Can't be used: "), true)
    }

    func testImportAndRemove() async throws {
        let (state, _, own, kept) = try made()
        let outside = try Directory()
        state.importBundle(.success(try outside.bundle("mine", task: .segment)))
        XCTAssertEqual(state.notice, Words.importWorking)
        XCTAssertTrue(state.isImporting)
        await state.settled()
        XCTAssertFalse(state.isImporting)
        XCTAssertEqual(state.notice, "Imported as mine.")
        XCTAssertEqual(kept()?.bundle, "mine")
        XCTAssertEqual(state.chosen?.isImported, true)
        state.removeChosen()
        await state.settled()
        XCTAssertEqual(state.chosen?.name, "classify")
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: own.url.path), [])
        state.removeChosen()
        await state.settled()
        XCTAssertEqual(state.rows?.count, 2)
    }

    func testAnImportWaitsForALookAndIsNotOverWithIt() async throws {
        let (state, _, _, _) = try made()
        let outside = try Directory()
        let folder = try outside.bundle("mine", task: .segment)
        state.refresh()
        state.importBundle(.success(folder))
        while state.rows == nil {
            XCTAssertTrue(state.isImporting)
            await Task.yield()
        }
        await state.settled()
        XCTAssertFalse(state.isImporting)
    }

    func testAFolderThatIsNoBundleIsSaid() async throws {
        let (state, _, _, _) = try made()
        let outside = try Directory()
        state.importBundle(.success(outside.url))
        await state.settled()
        XCTAssertEqual(state.notice?.hasPrefix("The folder can't be imported: "), true)
        state.importBundle(.failure(XFormerError.usage("no rights")))
        XCTAssertEqual(state.notice, "The folder can't be imported: no rights")
    }
}
