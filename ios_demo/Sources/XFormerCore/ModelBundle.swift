import Foundation

/// One converted model of a bundle, which has the manifest's SHA-256.
public struct Artifact: Sendable, Hashable {
    /// What it is.
    public let format: ArtifactFormat

    /// A file inside the bundle; a directory for ``ArtifactFormat/coreml``.
    public let url: URL

    /// In hexadecimal, see ``Manifest/Artifact/sha256``.
    public let sha256: String

    /// Of all its files.
    public let sizeBytes: Int

    /// An artifact that is known to be what it says.
    public init(format: ArtifactFormat, url: URL, sha256: String, sizeBytes: Int) {
        self.format = format
        self.url = url
        self.sha256 = sha256
        self.sizeBytes = sizeBytes
    }
}

/// A golden input and what the reference model returns for it.
public struct GoldenCase: Sendable, Equatable {
    /// The input's file name without its extension.
    public let name: String

    /// Of the input's size.
    public let image: RgbImage

    /// By output name, in the manifest's shapes.
    public let outputs: Outputs

    /// An input and its outputs.
    public init(name: String, image: RgbImage, outputs: Outputs) {
        self.name = name
        self.image = image
        self.outputs = outputs
    }
}

/// One model at one precision in any number of formats: a directory with a manifest.json (docs/bundle.md).
///
/// Nothing in it is trusted: the manifest is checked when the bundle is opened, each file when it is asked for.
public struct ModelBundle: Sendable {
    /// Where the bundle is.
    public let directory: URL

    /// What it says of itself.
    public let manifest: Manifest

    /// The largest input as a PNG that is not compressed at all, and what goes with it.
    private static let maxPictureBytes = 64 << 20

    /// Reads and checks the manifest. Artifacts are checked when they are asked for.
    ///
    /// - Throws: ``XFormerError/bundle(_:)`` when there is no bundle, or its manifest is broken, foreign, or of a newer
    ///   major version.
    public static func open(_ directory: URL) throws -> ModelBundle {
        ModelBundle(directory: directory, manifest: try Manifest.read(directory))
    }

    /// What the model does.
    public var task: ModelTask { manifest.model.task }

    /// The classes' names, in the order of their indices.
    public var labels: [String] { manifest.model.labels }

    /// "fp32", "fp16", "int8" or "int8-weights".
    public var precision: String { manifest.precision }

    /// The input's size.
    public var imageSize: ImageSize { manifest.input.size }

    /// How a picture is fitted to the input.
    public var resizeRule: ResizeRule { manifest.input.resize.rule }

    /// The outputs' shapes by name.
    public var outputShapes: [String: [Int]] {
        Dictionary(uniqueKeysWithValues: manifest.outputs.map { ($0.name, $0.shape) })
    }

    /// The formats that the bundle holds, in the manifest's order.
    public var formats: [ArtifactFormat] { manifest.artifacts.map(\.format) }

    /// Whether the weights were drawn at random: the predictions mean nothing.
    public var isUntrained: Bool { manifest.model.weights.source == .untrained }

    /// The artifact of that format. Reads the whole file, to check it against the manifest.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when the bundle has no such format, ``XFormerError/bundle(_:)`` when the
    ///   file is missing, leads out of the bundle, or has another SHA-256.
    public func artifact(_ format: ArtifactFormat) throws -> Artifact {
        guard let entry = manifest.artifacts.first(where: { $0.format == format }) else {
            let has = formats.map(\.rawValue).joined(separator: ", ")
            throw XFormerError.usage(
                "the bundle \(directory.lastPathComponent) has no \(format.rawValue) artifact; it has \(has)")
        }
        let url = try checked(entry.file, entry.sha256, isDirectory: format == .coreml)
        return Artifact(format: format, url: url, sha256: entry.sha256, sizeBytes: entry.sizeBytes)
    }

    /// Reads every file that the manifest names, such as after a copy.
    ///
    /// - Throws: ``XFormerError/bundle(_:)`` when one is missing, leads out of the bundle, or has another SHA-256.
    public func verify() throws {
        for entry in manifest.artifacts {
            _ = try checked(entry.file, entry.sha256, isDirectory: entry.format == .coreml)
        }
        let golden = manifest.golden.flatMap { [$0.input] + Array($0.outputs.values) }
        for entry in golden + [manifest.report].compactMap({ $0 }) {
            _ = try checked(entry.file, entry.sha256, isDirectory: false)
        }
    }

    /// The task's postprocessing, with the manifest's constants.
    public func postprocess() throws -> Postprocess {
        let stated = manifest.postprocess
        var detection: DetectionRule?
        if let anchors = stated.anchors, let strides = stated.strides, let score = stated.scoreThreshold,
            let overlap = stated.iouThreshold, let most = stated.maxDetections, task == .detect
        {
            detection = try DetectionRule(
                anchors: anchors, strides: strides, scoreThreshold: Float(score), iouThreshold: Float(overlap),
                maxDetections: most)
        }
        return try Postprocess(
            task: task, labels: labels, topK: stated.topK ?? 1, detection: detection, palette: stated.palette ?? [])
    }

    // MARK: - Golden cases

    /// How many golden inputs there are.
    public var goldenCount: Int { manifest.golden.count }

    /// A golden input and the reference model's outputs for it.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when there is no such case, ``XFormerError/bundle(_:)`` when a file is
    ///   missing, leads out of the bundle, or has another SHA-256 or another size.
    public func golden(_ index: Int, decode: PictureDecoder) throws -> GoldenCase {
        guard manifest.golden.indices.contains(index) else {
            throw XFormerError.usage("there is no golden case \(index); the bundle has \(goldenCount), from 0 on")
        }
        let entry = manifest.golden[index]
        let image: RgbImage
        do {
            image = try decode(content(entry.input, most: Self.maxPictureBytes))
        } catch XFormerError.image(let message) {
            throw XFormerError.bundle("\(named(entry.input.file)) can't be used: \(message)")
        }
        guard image.width == imageSize.width, image.height == imageSize.height else {
            throw XFormerError.bundle(
                "\(named(entry.input.file)) is \(image.height)x\(image.width), not \(imageSize)")
        }
        var outputs: Outputs = [:]
        for (name, shape) in outputShapes {
            guard let stored = entry.outputs[name] else {
                throw XFormerError.bundle("the golden outputs for \(named(entry.input.file)) lack \(quote(name))")
            }
            outputs[name] = try tensor(stored, shape)
        }
        let file = URL(fileURLWithPath: entry.input.file)
        return GoldenCase(name: file.deletingPathExtension().lastPathComponent, image: image, outputs: outputs)
    }

    private func tensor(_ entry: Manifest.FileEntry, _ shape: [Int]) throws -> Tensor {
        // The manifest's outputs fit the memory together.
        let count = shape.reduce(1, *)
        let content = try content(entry, most: 4 * count)
        guard content.count == 4 * count else {
            throw XFormerError.bundle("\(named(entry.file)) does not have the shape \(describe(shape))")
        }
        let values = content.withUnsafeBytes { bytes in
            (0..<count).map { place in
                Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * place, as: UInt32.self)))
            }
        }
        return try Tensor(shape: shape, values: values)
    }

    // MARK: - Files

    /// Where a file or directory is that has been read once, to check it.
    private func checked(_ path: String, _ sha256: String, isDirectory: Bool) throws -> URL {
        try reading(path) {
            let url = try existing(path, isDirectory: isDirectory)
            try check(path, sha256, found: isDirectory ? treeSha256(url) : fileSha256(url))
            return url
        }
    }

    /// The content of a file of at most so many bytes; what is checked is what is returned.
    private func content(_ entry: Manifest.FileEntry, most: Int) throws -> Data {
        try reading(entry.file) {
            let url = try existing(entry.file, isDirectory: false)
            let content = try readAtMost(most + 1, of: url)
            guard content.count <= most else {
                throw XFormerError.bundle("\(named(entry.file)) has more than \(most) bytes")
            }
            try check(entry.file, entry.sha256, found: XFormerCore.sha256(content))
            return content
        }
    }

    /// The manifest's rule for paths lets none leave the bundle; a symbolic link could.
    private func existing(_ path: String, isDirectory: Bool) throws -> URL {
        let url = directory.appendingPathComponent(path)
        guard let real = try canonicalPath(url), let home = try canonicalPath(directory) else {
            throw XFormerError.bundle("\(named(path)) is missing; the manifest names it")
        }
        guard real.hasPrefix(home + "/") else { throw XFormerError.bundle("\(named(path)) leads out of it") }
        if isDirectory, !XFormerCore.isDirectory(url) {
            throw XFormerError.bundle("\(named(path)) is not a directory")
        }
        if !isDirectory, !isRegularFile(url) { throw XFormerError.bundle("\(named(path)) is not a file") }
        return url
    }

    private func check(_ path: String, _ stated: String, found: String) throws {
        if found != stated {
            throw XFormerError.bundle(
                "\(named(path)) is not the file that the manifest describes: its sha256 is \(found.prefix(12))..., "
                    + "not \(stated.prefix(12))...; it was changed, truncated or exchanged")
        }
    }

    private func named(_ path: String) -> String { "\(path) of the bundle \(directory.lastPathComponent)" }

    private func reading<Value>(_ path: String, _ read: () throws -> Value) throws -> Value {
        do {
            return try read()
        } catch let error as XFormerError {
            throw error
        } catch {
            throw XFormerError.bundle("can't read \(named(path)): \(oneLine(error))")
        }
    }
}
