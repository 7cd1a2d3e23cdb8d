import Foundation
import XFormerCore

/// What a test bundle's files hold, by their path: artifacts, golden inputs and outputs, a report.
package struct TestBundle {
    /// The manifest, with the sums of these files.
    package private(set) var manifest: Json

    /// By path.
    package private(set) var files: [String: Data] = [:]

    /// A manifest of an export, cut down to three classes; the Kotlin tests read it too.
    package static func manifest(of task: ModelTask) throws -> Json {
        try .file(Golden.root.appendingPathComponent("manifests/\(task.rawValue).json"))
    }

    /// A task's bundle, its input of 64 x 64.
    package init(_ task: ModelTask) throws {
        try self.init(Self.manifest(of: task))
    }

    /// The files that a manifest names, drawn.
    package init(_ manifest: Json) {
        self.manifest = manifest
        var drawn = Drawn(seed: 1)
        for (i, artifact) in (manifest.at("artifacts")?.items ?? []).enumerated() {
            let name = artifact.at("file")?.text ?? ""
            if artifact.at("format") == .text("coreml") {
                files["\(name)/Manifest.json"] = Data("{}".utf8)
                files["\(name)/Data/model.mlmodel"] = Data(drawn.bytes(40))
                files["\(name)/Data/model-weights.bin"] = Data(drawn.bytes(50))
                self.manifest = self.manifest.with("artifacts/\(i)/sha256", .text(lines(name)))
            } else {
                store("artifacts/\(i)", Data(drawn.bytes(300)))
            }
        }
        let outputs = manifest.at("outputs")?.items ?? []
        for i in (manifest.at("golden")?.items ?? []).indices {
            store("golden/\(i)/input", Data(drawn.bytes(3 * 64 * 64)))
            for output in outputs {
                let sides = (output.at("shape")?.items ?? []).compactMap { Int($0.written) }
                let values = drawn.floats(sides.reduce(1, *))
                store("golden/\(i)/outputs/\(output.at("name")?.text ?? "")", Data(littleEndian: values))
            }
        }
        store("report", Data("{}".utf8))
    }

    /// The content of the file at a place of the manifest, and its SHA-256 there.
    package mutating func store(_ place: String, _ content: Data) {
        guard let path = manifest.at("\(place)/file")?.text else { return }
        files[path] = content
        manifest = manifest.with("\(place)/sha256", .text(sha256(content)))
    }

    /// What sha256sum would print for a directory, as xformer_mobile/files.py has it.
    private func lines(_ directory: String) -> String {
        let names = files.keys.filter { $0.hasPrefix("\(directory)/") }.sorted()
        let lines = names.map { "\(sha256(files[$0] ?? Data()))  \($0.dropFirst(directory.count + 1))\n" }
        return sha256(Data(lines.joined().utf8))
    }

    /// Writes every file, and the manifest with a last change.
    package func write(to directory: URL, _ change: (Json) -> Json = { $0 }) throws {
        for (name, content) in files {
            let url = directory.appendingPathComponent(name)
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try content.write(to: url)
        }
        try Data(change(manifest).written.utf8).write(to: directory.appendingPathComponent("manifest.json"))
    }
}

/// The golden inputs of test bundles are bare bytes, whatever their names say.
public let decodeRaw: PictureDecoder = { try RgbImage(width: 64, height: 64, bytes: [UInt8]($0)) }

/// Runs a test with an empty directory, which is gone afterwards.
public func withTemporaryDirectory<Result>(_ test: (URL) throws -> Result) throws -> Result {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("xformer-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    return try test(directory)
}
