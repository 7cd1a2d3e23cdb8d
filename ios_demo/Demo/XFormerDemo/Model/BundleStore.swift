import Foundation
import XFormerCore

/// A bundle that can be chosen.
struct StoredBundle: Hashable, Identifiable, Sendable {
    /// The name of its folder.
    let name: String

    /// Where it is.
    let directory: URL

    /// Whether the user brought it; else it is built into the app.
    let isImported: Bool

    var id: String { name }
}

/// The bundles that the app has: built-in ones and imported ones. No two have one name. All functions use files.
struct BundleStore: Sendable {
    /// The folder of the built-in bundles; it need not exist.
    let builtIn: URL

    /// The folder of the imported ones, and of nothing else; it is made when it is needed.
    let imported: URL

    /// All of them by name, the built-in ones first. What is no bundle's name is left out.
    func all() -> [StoredBundle] {
        let inApp = folders(in: builtIn, isImported: false)
        let names = Set(inApp.map(\.name))
        return inApp + folders(in: imported, isImported: true).filter { !names.contains($0.name) }
    }

    /// The bundle of that name; nil is the first one.
    ///
    /// - Throws: ``XFormerError/bundle(_:)`` when there is none.
    func find(_ name: String?) throws -> StoredBundle {
        let all = all()
        guard let first = all.first else {
            throw XFormerError.bundle("the app has no bundle; build one in, or import one")
        }
        guard let found = name == nil ? first : all.first(where: { $0.name == name }) else {
            let names = all.map(\.name).joined(separator: ", ")
            throw XFormerError.bundle("the app has no bundle '\(name ?? "")'; it has \(names)")
        }
        return found
    }

    /// Copies the bundle in a folder; the name is made from the folder's. Nothing is left of one that is refused.
    ///
    /// - Throws: ``XFormerError/bundle(_:)`` when it holds no bundle that Core ML runs, or a hostile one, or can't be
    ///   read, or there is no room.
    func copy(from folder: URL) throws -> StoredBundle {
        let files = FileManager.default
        let partial = imported.appendingPathComponent(".partial-\(UUID().uuidString)", isDirectory: true)
        defer { try? files.removeItem(at: partial) }
        do {
            try files.createDirectory(at: imported, withIntermediateDirectories: true)
            // Before a large folder that is none is copied.
            let formats = try ModelBundle.open(folder).formats
            guard formats.contains(.coreml) else {
                throw XFormerError.bundle(
                    "it has no Core ML model but \(formats.map(\.rawValue).joined(separator: ", ")); "
                        + "export it with --format coreml")
            }
            try files.copyItem(at: folder, to: partial)
            // What was copied counts: the folder may have changed meanwhile.
            _ = try ModelBundle.open(partial).artifact(.coreml)
            let name = BundleName.unused(for: folder.lastPathComponent, taken: Set(all().map(\.name)))
            let place = imported.appendingPathComponent(name, isDirectory: true)
            try files.moveItem(at: partial, to: place)
            excludeFromBackup(place)
            return StoredBundle(name: name, directory: place, isImported: true)
        } catch let error as XFormerError {
            throw error
        } catch {
            throw XFormerError.bundle("'\(folder.lastPathComponent)' can't be copied: \(error.localizedDescription)")
        }
    }

    /// Deletes an imported bundle; nothing happens where there is none of that name.
    ///
    /// - Throws: ``XFormerError/bundle(_:)`` when its files can't be deleted.
    func remove(_ bundle: StoredBundle) throws {
        guard bundle.isImported, BundleName.isValid(bundle.name) else { return }
        let place = imported.appendingPathComponent(bundle.name, isDirectory: true)
        guard FileManager.default.fileExists(atPath: place.path) else { return }
        do {
            try FileManager.default.removeItem(at: place)
        } catch {
            throw XFormerError.bundle("'\(bundle.name)' can't be removed: \(error.localizedDescription)")
        }
    }

    private func folders(in directory: URL, isImported: Bool) -> [StoredBundle] {
        let found = try? FileManager.default.contentsOfDirectory(
            at: directory, includingPropertiesForKeys: [.isDirectoryKey])
        return (found ?? [])
            .filter { BundleName.isValid($0.lastPathComponent) && $0.isDirectory }
            .map { StoredBundle(name: $0.lastPathComponent, directory: $0, isImported: isImported) }
            .sorted { $0.name < $1.name }
    }

    /// It can be had again, and is large. Where the system refuses, the bundle is backed up, which does no harm.
    private func excludeFromBackup(_ place: URL) {
        var values = URLResourceValues()
        values.isExcludedFromBackup = true
        var place = place
        try? place.setResourceValues(values)
    }
}

extension URL {
    fileprivate var isDirectory: Bool { (try? resourceValues(forKeys: [.isDirectoryKey]))?.isDirectory == true }
}
