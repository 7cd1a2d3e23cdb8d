import Combine
import Foundation
import XFormerCore
import XFormerCoreML

/// A screen that the camera's screen leads to.
enum Screen: Hashable, Sendable {
    case picture
    case setup
    case benchmark
}

/// What all screens share: the bundles, the user's choice, the camera.
@MainActor
final class Demo: ObservableObject {
    /// The screens above the first one.
    @Published var path: [Screen] = []

    /// The device's cameras.
    let camera = CameraSession()

    /// The first screen.
    let live: LiveState

    /// The only screen, where the launch arguments ask for a headless benchmark; else nil.
    let headless: HeadlessState?

    /// Whether the app shall do nothing, so that it does not disturb the tests that it hosts.
    let isIdle: Bool

    private let bundles: BundleStore
    private let choices: ChoiceStore

    /// The app as it was launched.
    init() {
        let files = FileManager.default
        // Both are always there: the system makes an app's folders with the app.
        let support = files.urls(for: .applicationSupportDirectory, in: .userDomainMask)[0]
        let documents = files.urls(for: .documentDirectory, in: .userDomainMask)[0]
        let bundles = BundleStore(
            builtIn: Bundle.main.bundleURL.appendingPathComponent("Bundles", isDirectory: true),
            imported: support.appendingPathComponent("Bundles", isDirectory: true))
        let choices = ChoiceStore(defaults: .standard)
        self.bundles = bundles
        self.choices = choices
        live = LiveState(
            camera: camera, models: ModelSlot(open: { try await CoreMLModel.open($0, of: bundles) }),
            choice: { choices.choice }, problem: { Self.problem($0, of: bundles) })
        let arguments = Array(ProcessInfo.processInfo.arguments.dropFirst())
        isIdle = arguments.contains("--idle")
        if HeadlessArguments.isAsked(by: arguments) {
            let benchmark = HeadlessBenchmark(
                results: ResultStore(directory: documents), open: { try Self.open($0, of: bundles) },
                device: CoreMLDevice(), log: { FileHandle.standardOutput.write(Data("\($0)\n".utf8)) })
            headless = HeadlessState(benchmark, arguments: arguments)
        } else {
            headless = nil
        }
    }

    /// The state of a picture's screen.
    func makePicture() -> PictureState {
        PictureState(
            models: ModelSlot(open: { [bundles] in try await CoreMLModel.open($0, of: bundles) }),
            choice: { [choices] in choices.choice }, problem: { [bundles] in Self.problem($0, of: bundles) },
            decode: { try Pictures.decode($0, maxPixels: PictureState.mostPixels, subsample: true) })
    }

    /// The state of the model's screen.
    func makeSetup() -> SetupState {
        SetupState(bundles: bundles, choice: choices.choice) { [choices] in choices.choice = $0 }
    }

    /// The state of the benchmark's screen.
    func makeBenchmark() -> BenchmarkState {
        let name = choices.choice.bundle
        let caches = FileManager.default.temporaryDirectory.appendingPathComponent("results", isDirectory: true)
        return BenchmarkState(
            open: { [bundles] in try Self.open(name, of: bundles) },
            problem: { [bundles] in Self.problem($0, of: bundles) }, device: CoreMLDevice(),
            results: ResultStore(directory: caches, most: 10))
    }

    /// The bundle of that name, and what it really is called; nil is the first one.
    private nonisolated static func open(_ name: String?, of bundles: BundleStore) throws -> (String, ModelBundle) {
        let stored = try bundles.find(name)
        return (stored.name, try ModelBundle.open(stored.directory))
    }

    /// Why a model could not be opened, in words; also that there is none yet, and how one comes into the app.
    private static func problem(_ error: any Error, of bundles: BundleStore) -> String {
        bundles.all().isEmpty ? Words.noBundle : Words.modelFailed(error.localizedDescription)
    }
}

/// Keeps what the user has chosen.
@MainActor
final class ChoiceStore {
    private static let key = "choice"

    private let defaults: UserDefaults

    /// What was kept in `defaults`.
    init(defaults: UserDefaults) {
        self.defaults = defaults
    }

    /// What the user has chosen to run.
    var choice: Choice {
        get { Choice(stored: defaults.dictionary(forKey: Self.key) ?? [:]) }
        set { defaults.set(newValue.words, forKey: Self.key) }
    }
}
