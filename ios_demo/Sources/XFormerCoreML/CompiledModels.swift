#if canImport(CoreML)
import CoreML
import Foundation
import XFormerCore

/// A model in the form that Core ML loads.
public struct CompiledModel: Sendable {
    /// A .mlmodelc.
    public let url: URL

    /// Whether it was compiled before, by an earlier call or launch.
    public let isReused: Bool

    /// For people: why it will have to be compiled again.
    public let notes: [String]
}

/// Core ML models, compiled on the device and kept for the next launch.
///
/// An entry is named by the artifact's sha256 and the system's version and build: another artifact or an update of the
/// system compiles anew. It appears whole or not at all; one that is not complete, or that Core ML refuses, is thrown
/// away and made again. The system may empty the directory at any time.
public struct CompiledModels: Sendable {
    /// Where the entries are.
    public let directory: URL

    private static let model = "model.mlmodelc"
    private static let list = "files.json"

    /// Entries in `directory`; nil is the app's caches directory.
    public init(directory: URL? = nil) {
        let caches = FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask).first
        let parent = caches ?? FileManager.default.temporaryDirectory
        self.directory = directory ?? parent.appendingPathComponent("xformer-mobile/coreml", isDirectory: true)
    }

    /// An artifact, compiled: from the entry of an earlier call, or now, which takes seconds. An artifact that is
    /// compiled already (.mlmodelc) is returned as it is.
    ///
    /// - Throws: ``XFormerCore/XFormerError/bundle(_:)`` when Core ML refuses the artifact.
    public func model(for artifact: Artifact) async throws -> CompiledModel {
        guard artifact.url.pathExtension != "mlmodelc" else {
            return CompiledModel(url: artifact.url, isReused: true, notes: [])
        }
        let entry = entry(for: artifact)
        if Self.isComplete(entry) {
            return CompiledModel(url: entry.appendingPathComponent(Self.model), isReused: true, notes: [])
        }
        let compiled: URL
        do {
            compiled = try await MLModel.compileModel(at: artifact.url)
        } catch let error where !(error is CancellationError) {
            throw XFormerError.bundle("Core ML can't compile \(artifact.url.lastPathComponent): \(oneLine(error))")
        }
        do {
            try keep(compiled, as: entry)
            removeOthers(of: artifact, than: entry)
            return CompiledModel(url: entry.appendingPathComponent(Self.model), isReused: false, notes: [])
        } catch {
            let note = "the compiled model can't be kept and is compiled again next time: \(oneLine(error))"
            return CompiledModel(url: compiled, isReused: false, notes: [note])
        }
    }

    /// Throws away what is kept of an artifact.
    public func forget(_ artifact: Artifact) {
        try? FileManager.default.removeItem(at: entry(for: artifact))
    }

    /// The directory of an artifact's entry, whether it is there or not.
    func entry(for artifact: Artifact) -> URL {
        let system = ProcessInfo.processInfo.operatingSystemVersionString
            .filter { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == ".") }
        return directory.appendingPathComponent("\(artifact.sha256)-\(system)", isDirectory: true)
    }

    /// Moves a compiled model to its entry, with a list of its files. Of two calls at once, the first one's stays.
    private func keep(_ compiled: URL, as entry: URL) throws {
        let files = FileManager.default
        try files.createDirectory(at: directory, withIntermediateDirectories: true)
        // Beside the compiled model, which the system puts on the volume of the caches: the last move is one step then.
        let draft = compiled.deletingLastPathComponent().appendingPathComponent("xformer-\(UUID().uuidString)")
        try files.createDirectory(at: draft, withIntermediateDirectories: true)
        let model = draft.appendingPathComponent(Self.model)
        try files.moveItem(at: compiled, to: model)
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = .sortedKeys
            try encoder.encode(Self.files(in: model)).write(to: draft.appendingPathComponent(Self.list))
            if Self.isComplete(entry) {
                try? files.removeItem(at: draft)
                return
            }
            try? files.removeItem(at: entry)
            try files.moveItem(at: draft, to: entry)
        } catch {
            let isThere = Self.isComplete(entry)
            // The caller goes on with the model where it was.
            if !isThere { try files.moveItem(at: model, to: compiled) }
            try? files.removeItem(at: draft)
            if !isThere { throw error }
        }
    }

    /// Removes what older systems compiled of the same artifact.
    private func removeOthers(of artifact: Artifact, than entry: URL) {
        let found = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
        for name in found where name.hasPrefix(artifact.sha256) && name != entry.lastPathComponent {
            try? FileManager.default.removeItem(at: directory.appendingPathComponent(name))
        }
    }

    /// Whether an entry has every file that it was made with, in its size.
    private static func isComplete(_ entry: URL) -> Bool {
        guard let data = try? Data(contentsOf: entry.appendingPathComponent(list)),
            let listed = try? JSONDecoder().decode([String: Int].self, from: data), !listed.isEmpty
        else { return false }
        return listed == files(in: entry.appendingPathComponent(model))
    }

    /// Sizes in bytes, by path inside a directory.
    private static func files(in directory: URL) -> [String: Int] {
        var sizes: [String: Int] = [:]
        guard let paths = FileManager.default.enumerator(atPath: directory.path) else { return sizes }
        for case let path as String in paths {
            let attributes = try? FileManager.default.attributesOfItem(
                atPath: directory.appendingPathComponent(path).path)
            guard attributes?[.type] as? FileAttributeType == .typeRegular else { continue }
            sizes[path] = (attributes?[.size] as? NSNumber)?.intValue
        }
        return sizes
    }
}
#endif
