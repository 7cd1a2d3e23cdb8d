import Foundation
import XFormerCore

/// The names that result files may have: they may come from a command line.
enum ResultName {
    /// What every name ends with.
    static let suffix = ".json"

    /// Whether a name is that of a file in the results' own folder: no path, nothing hidden, and a .json file.
    static func isValid(_ name: String) -> Bool {
        let stem = name.dropLast(suffix.count)
        return name.hasSuffix(suffix) && (1...95).contains(stem.utf8.count)
            && BundleName.isValid(String(stem.prefix(64)))
            && stem.dropFirst(64).allSatisfy { BundleName.isValid("a\($0)") }
    }

    /// The file beside the results that says how the run ended: `results.json` has `results.status.json`. `name` is
    /// valid.
    static func status(of name: String) -> String { name.dropLast(suffix.count) + ".status" + suffix }
}

/// A folder of result files.
struct ResultStore: Sendable {
    let directory: URL

    /// The oldest files beyond so many are deleted when one is added.
    var most = Int.max

    /// Writes a file, whole or not at all.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` for a name that is not that of a result file; what Foundation throws when
    ///   there is no room, or the folder can't be written.
    func write(_ data: Data, as name: String) throws -> URL {
        let file = try url(of: name)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        try data.write(to: file, options: .atomic)
        for old in older(than: file).dropFirst(most - 1) { try? FileManager.default.removeItem(at: old) }
        return file
    }

    /// Deletes a file; nothing happens where there is none.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` for a name that is not that of a result file; what Foundation throws when
    ///   it can't be deleted.
    func delete(_ name: String) throws {
        let file = try url(of: name)
        if FileManager.default.fileExists(atPath: file.path) { try FileManager.default.removeItem(at: file) }
    }

    private func url(of name: String) throws -> URL {
        guard ResultName.isValid(name) else {
            throw XFormerError.usage("'\(name.prefix(60))' is not the name of a result file; valid: name.json")
        }
        return directory.appendingPathComponent(name)
    }

    /// The other results, the newest first.
    private func older(than file: URL) -> [URL] {
        let found = try? FileManager.default.contentsOfDirectory(
            at: directory, includingPropertiesForKeys: [.contentModificationDateKey])
        func date(of url: URL) -> Date {
            (try? url.resourceValues(forKeys: [.contentModificationDateKey]))?.contentModificationDate ?? .distantPast
        }
        return (found ?? [])
            .filter { ResultName.isValid($0.lastPathComponent) && $0.lastPathComponent != file.lastPathComponent }
            .sorted { date(of: $0) > date(of: $1) }
    }
}
