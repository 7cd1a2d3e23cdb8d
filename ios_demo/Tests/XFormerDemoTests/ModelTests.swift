import Foundation
import TestSupport
import XCTest
import XFormerCore
import XFormerCoreML

@testable import XFormerDemo

final class ChoiceTests: XCTestCase, @unchecked Sendable {
    func testWhatIsKeptIsReadAgain() {
        for units in ComputeUnits.allCases {
            for bundle in [nil, "classify-int8"] {
                let choice = Choice(bundle: bundle, units: units)
                XCTAssertEqual(Choice(stored: choice.words), choice)
            }
        }
    }

    func testWhatCannotBeReadIsAsIfItWereNotThere() {
        XCTAssertEqual(Choice(stored: [:]), Choice())
        XCTAssertEqual(Choice(stored: ["bundle": "../up", "units": "quantum"]), Choice())
        XCTAssertEqual(Choice(stored: ["bundle": 7, "units": 8]), Choice())
    }

    @MainActor
    func testChoiceStoreKeeps() async throws {
        let name = "xformer-tests-\(UUID().uuidString)"
        let defaults = try XCTUnwrap(UserDefaults(suiteName: name))
        defer { defaults.removePersistentDomain(forName: name) }
        let store = ChoiceStore(defaults: defaults)
        XCTAssertEqual(store.choice, Choice())
        store.choice = Choice(bundle: "detect", units: .cpuOnly)
        XCTAssertEqual(ChoiceStore(defaults: defaults).choice, Choice(bundle: "detect", units: .cpuOnly))
    }
}

final class BundleNameTests: XCTestCase {
    func testValidNames() {
        for name in ["a", "classify-int8", "My_bundle.2", String(repeating: "x", count: 64)] {
            XCTAssertTrue(BundleName.isValid(name), name)
        }
        for name in ["", ".hidden", "..", "a/b", "-x", "ä", "a b", String(repeating: "x", count: 65)] {
            XCTAssertFalse(BundleName.isValid(name), name)
        }
    }

    func testUnusedNames() {
        let cases: [(String, Set<String>, String)] = [
            ("detect", [], "detect"),
            ("detect", ["detect"], "detect-2"),
            ("detect", ["detect", "detect-2"], "detect-3"),
            ("my bundle", [], "my-bundle"),
            ("..", [], "bundle"),
            ("日本", [], "bundle"),
            (String(repeating: "x", count: 300), [], String(repeating: "x", count: 56)),
        ]
        for (folder, taken, expected) in cases {
            let name = BundleName.unused(for: folder, taken: taken)
            XCTAssertEqual(name, expected)
            XCTAssertTrue(BundleName.isValid(name), name)
        }
    }
}

final class BundleStoreTests: XCTestCase {
    func testBuiltInOnesComeFirst() throws {
        let (inApp, own) = (try Directory(), try Directory())
        _ = try inApp.bundle("segment", task: .segment)
        _ = try inApp.bundle("classify")
        _ = try own.bundle("another")
        _ = try own.bundle("classify")
        _ = try own.bundle(".partial-1")
        let store = BundleStore(builtIn: inApp.url, imported: own.url)
        XCTAssertEqual(store.all().map(\.name), ["classify", "segment", "another"])
        XCTAssertEqual(store.all().map(\.isImported), [false, false, true])
        XCTAssertEqual(try store.find(nil).name, "classify")
        XCTAssertEqual(try store.find("another").isImported, true)
        XCTAssertThrowsError(try store.find("gone")) { error in
            XCTAssertEqual(
                error as? XFormerError, .bundle("the app has no bundle 'gone'; it has classify, segment, another"))
        }
    }

    func testThereMayBeNone() throws {
        let nowhere = URL(fileURLWithPath: "/nowhere/at/all")
        let store = BundleStore(builtIn: nowhere, imported: nowhere)
        XCTAssertEqual(store.all(), [])
        XCTAssertThrowsError(try store.find(nil)) { error in
            XCTAssertEqual(error as? XFormerError, .bundle("the app has no bundle; build one in, or import one"))
        }
    }

    func testACopyIsOpenedAndRemoved() throws {
        let (inApp, own, outside) = (try Directory(), try Directory(), try Directory())
        _ = try inApp.bundle("mine")
        let store = BundleStore(builtIn: inApp.url, imported: own.url.appendingPathComponent("made"))
        let copied = try store.copy(from: outside.bundle("mine"))
        XCTAssertEqual(copied.name, "mine-2")
        XCTAssertEqual(try ModelBundle.open(copied.directory).task, .classify)
        XCTAssertEqual(store.all().map(\.name), ["mine", "mine-2"])
        try store.remove(copied)
        try store.remove(copied)
        try store.remove(store.find("mine"))
        XCTAssertEqual(store.all().map(\.name), ["mine"])
    }

    func testWhatIsNoBundleLeavesNothing() throws {
        let (own, outside) = (try Directory(), try Directory())
        let store = BundleStore(builtIn: outside.url, imported: own.url)
        let empty = outside.url.appendingPathComponent("empty")
        try FileManager.default.createDirectory(at: empty, withIntermediateDirectories: true)
        let broken = try outside.bundle("broken")
        try Data("other".utf8).write(
            to: broken.appendingPathComponent("model.mlpackage/Data/model.mlmodel"))
        let onnx = outside.url.appendingPathComponent("onnx")
        try FileManager.default.createDirectory(at: onnx, withIntermediateDirectories: true)
        try TestBundle(.classify).write(to: onnx)
        for folder in [empty, broken, onnx, outside.url.appendingPathComponent("gone")] {
            XCTAssertThrowsError(try store.copy(from: folder)) { error in
                guard case .bundle = error as? XFormerError else { return XCTFail("\(error)") }
            }
            XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: own.url.path), [], folder.path)
        }
    }
}

@MainActor
final class ModelSlotTests: XCTestCase, @unchecked Sendable {
    private let first = Choice(bundle: "first")
    private let second = Choice(bundle: "second")

    func testTheOneThatIsWantedIsOpenAndNoOther() async {
        let models = ["first": FakeModel("first"), "second": FakeModel("second")]
        let slot = ModelSlot { models[$0.bundle ?? ""]! }  // asked for these two only
        slot.want(first)
        guard case .opening(first) = slot.state else { return XCTFail("\(slot.state)") }
        await slot.settled()
        XCTAssertEqual((slot.state.model as? FakeModel)?.name, "first")
        slot.want(first)
        XCTAssertNotNil(slot.state.model)
        slot.want(second)
        XCTAssertNil(slot.state.model)
        await slot.settled()
        XCTAssertEqual((slot.state.model as? FakeModel)?.name, "second")
        XCTAssertEqual(models["first"]?.timesClosed, 1)
        slot.want(nil)
        guard case .empty = slot.state else { return XCTFail("\(slot.state)") }
        await slot.settled()
        XCTAssertEqual(models["second"]?.timesClosed, 1)
    }

    func testAWishThatIsGivenUpWhileItIsOpened() async {
        let opened = Counter()
        let slot = ModelSlot { choice in
            await opened.add(choice.bundle ?? "")
            await Task.yield()
            return FakeModel(choice.bundle ?? "")
        }
        var told: [String] = []
        slot.onChange = { state in
            if case .ready(let choice, _) = state { told.append(choice.bundle ?? "") }
        }
        slot.want(first)
        await Task.yield()
        slot.want(second)
        slot.want(first)
        slot.want(second)
        await slot.settled()
        XCTAssertEqual((slot.state.model as? FakeModel)?.name, "second")
        XCTAssertEqual(told, ["second"])
        slot.want(nil)
        slot.want(second)
        await slot.settled()
        XCTAssertEqual((slot.state.model as? FakeModel)?.name, "second")
    }

    func testAFailureIsToldAndTriedAgain() async {
        let opened = Counter()
        let slot = ModelSlot { choice in
            await opened.add(choice.bundle ?? "")
            if await opened.names.count == 1 { throw XFormerError.engine("busy") }
            return FakeModel()
        }
        slot.want(first)
        await slot.settled()
        guard case .failed(first, let error) = slot.state else { return XCTFail("\(slot.state)") }
        XCTAssertEqual(error as? XFormerError, .engine("busy"))
        slot.want(first)
        await slot.settled()
        XCTAssertNotNil(slot.state.model)
    }
}

actor Counter {
    private(set) var names: [String] = []

    func add(_ name: String) { names.append(name) }
}

final class EngineTextTests: XCTestCase {
    func testWhatIsUsedIsSaid() {
        func text(_ requested: String, used: String? = nil, notes: [String] = []) -> String {
            EngineText.describe(
                EngineReport(
                    engine: "coreml", version: "17.0", format: .coreml, requested: requested, used: used, notes: notes))
        }
        XCTAssertEqual(
            text("all"), "Core ML 17.0, coreml, All: Core ML chooses; what computes is not known")
        XCTAssertEqual(text("cpu-only", used: "cpu-only"), "Core ML 17.0, coreml, CPU only")
        XCTAssertEqual(
            text("all", used: "CPU 3, GPU 4", notes: ["first", "second"]),
            "Core ML 17.0, coreml, All: Core ML chooses; computes on CPU 3, GPU 4\nfirst\nsecond")
    }

    func testEachOfTheComputeUnitsHasANameOfItsOwn() {
        XCTAssertEqual(Set(ComputeUnits.allCases.map(EngineText.name)).count, ComputeUnits.allCases.count)
    }

    func testOnlyGoodWeightsHaveNoBanner() {
        XCTAssertNil(Banner.text(for: .checkpoint))
        XCTAssertEqual(Banner.text(for: .sample), Words.bannerSample)
        XCTAssertEqual(Banner.text(for: .untrained), Words.bannerUntrained)
    }
}
