import Combine
import Foundation
import XFormerCore
import XFormerCoreML

/// What the model's screen shows: the bundles, what is in the chosen one, and what it may compute on.
@MainActor
final class SetupState: ObservableObject {
    /// A line of the list of bundles.
    struct Row: Identifiable, Equatable {
        let bundle: StoredBundle
        let isChosen: Bool

        /// What is in it, or why it can't be used; nil for those that are not chosen.
        let details: String?

        var id: String { bundle.id }
    }

    /// Nil until they are found.
    @Published private(set) var rows: [Row]?

    /// What is chosen.
    @Published private(set) var choice: Choice

    /// What became of an import; nil where there is nothing to say.
    @Published private(set) var notice: String?

    /// Whether an import is under way.
    @Published private(set) var isImporting = false

    private let bundles: BundleStore
    private let keep: @MainActor (Choice) -> Void
    private var work: Task<Void, Never>?

    /// The state of a screen for `bundles`; `keep` keeps what the user chooses.
    init(bundles: BundleStore, choice: Choice, keep: @escaping @MainActor (Choice) -> Void) {
        self.bundles = bundles
        self.choice = choice
        self.keep = keep
    }

    /// Finds the bundles, which may have changed.
    func refresh() {
        run { _ in nil }
    }

    /// Choose a bundle.
    func choose(_ bundle: StoredBundle) {
        choose(Choice(bundle: bundle.name, units: choice.units))
        refresh()
    }

    /// Choose what Core ML may compute on.
    func choose(_ units: ComputeUnits) {
        choose(Choice(bundle: choice.bundle, units: units))
    }

    /// Import the bundle in a folder that the user has picked, and choose it.
    func importBundle(_ picked: Result<URL, any Error>) {
        switch picked {
        case .failure(let error): notice = Words.importFailed(error.localizedDescription)
        case .success(let folder):
            notice = Words.importWorking
            isImporting = true
            run { bundles in
                // Outside the app's own folders, files can be read between these two calls only.
                let isScoped = folder.startAccessingSecurityScopedResource()
                defer { if isScoped { folder.stopAccessingSecurityScopedResource() } }
                return .imported(try bundles.copy(from: folder))
            }
        }
    }

    /// Delete the chosen bundle, if it was imported.
    func removeChosen() {
        guard let chosen, chosen.isImported else { return }
        run { bundles in
            do {
                try bundles.remove(chosen)
                return .removed
            } catch {
                return .kept(error.localizedDescription)
            }
        }
    }

    /// The bundle that is chosen, or taken where none is.
    var chosen: StoredBundle? { rows?.first(where: \.isChosen)?.bundle }

    /// Waits until what was asked for is done.
    func settled() async {
        await work?.value
    }

    private enum Change: Sendable {
        case imported(StoredBundle)
        case removed

        /// An imported bundle could not be removed; the text says why.
        case kept(String)
    }

    /// One change after the other, each followed by a look at what there is now; files are not for the main actor.
    private func run(_ change: @escaping @Sendable (BundleStore) throws -> Change?) {
        let before = work
        work = Task { [bundles] in
            await before?.value
            let result = await Task.detached { Result { try change(bundles) } }.value
            apply(result)
            let wanted = choice.bundle
            let found = await Task.detached { Self.rows(of: bundles, wanted: wanted) }.value
            // A bundle that was chosen may have gone with another version of the app.
            if let wanted, !found.contains(where: { $0.bundle.name == wanted }) {
                choose(Choice(bundle: nil, units: choice.units))
            }
            rows = found
        }
    }

    private func apply(_ change: Result<Change?, any Error>) {
        switch change {
        case .success(.imported(let bundle)):
            choose(Choice(bundle: bundle.name, units: choice.units))
            notice = Words.importDone(bundle.name)
            isImporting = false
        case .success(.removed):
            choose(Choice(bundle: nil, units: choice.units))
            notice = nil
        case .success(.kept(let why)): notice = Words.somethingFailed(why)
        // A look at the bundles alone; an import may still be waiting for its turn.
        case .success(nil): break
        case .failure(let error):
            notice = Words.importFailed(error.localizedDescription)
            isImporting = false
        }
    }

    private func choose(_ next: Choice) {
        choice = next
        keep(next)
    }

    private nonisolated static func rows(of bundles: BundleStore, wanted: String?) -> [Row] {
        let all = bundles.all()
        let chosen = all.first { $0.name == wanted } ?? all.first
        return all.map { bundle in
            let isChosen = bundle == chosen
            return Row(bundle: bundle, isChosen: isChosen, details: isChosen ? BundleText.describe(bundle) : nil)
        }
    }
}

/// Bundles in words.
enum BundleText {
    /// What is in a bundle, or why it can't be used. Reads files.
    static func describe(_ stored: StoredBundle) -> String {
        do {
            let bundle = try ModelBundle.open(stored.directory)
            return Words.bundleDescription(
                task: name(of: bundle.task), size: bundle.imageSize.description, precision: bundle.precision,
                formats: bundle.formats.map(\.rawValue).joined(separator: Words.separator))
        } catch {
            return Words.bundleBroken(error.localizedDescription)
        }
    }

    private static func name(of task: ModelTask) -> String {
        switch task {
        case .classify: Words.taskClassify
        case .detect: Words.taskDetect
        case .segment: Words.taskSegment
        }
    }
}
