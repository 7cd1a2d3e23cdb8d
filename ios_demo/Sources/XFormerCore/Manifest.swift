import Foundation

/// What a bundle's manifest.json says: xformer_mobile/schemas/manifest.schema.json, schema version 1.x.
///
/// One that exists has been checked: it follows the schema and does not contradict itself. Fields that are not known
/// are ignored. Shapes are row-major.
public struct Manifest: Sendable, Equatable {
    /// "1.x".
    public let schemaVersion: String

    /// The tool that made the bundle.
    public let generator: Generator

    /// The reference model.
    public let model: Model

    /// What every artifact takes.
    public let input: Input

    /// What every artifact returns.
    public let outputs: [Output]

    /// The task's constants.
    public let postprocess: Postprocess

    /// "fp32", "fp16", "int8" or "int8-weights".
    public let precision: String

    /// One for each format, at least one.
    public let artifacts: [Artifact]

    /// Inputs and what the reference model returns for them.
    public let golden: [Golden]

    /// By format: what was measured when the bundle was made. Empty where nothing was.
    public let parity: [String: Parity]

    /// What was counted in each artifact's graph.
    public let report: FileEntry?

    /// The pictures that the activations' ranges are from.
    public let calibration: Calibration?

    /// How the recipe was found.
    public let auto: Auto?

    /// The tool that made the bundle.
    public struct Generator: Sendable, Equatable {
        /// Such as "xformer-mobile".
        public let name: String

        /// The tool's version.
        public let version: String
    }

    /// What the reference model is.
    public struct Model: Sendable, Equatable {
        /// What it does.
        public let task: ModelTask

        /// Such as "xformer_s".
        public let variant: String

        /// As many as there are labels.
        public let numClasses: Int

        /// One line of printable text each, in the order of the classes' indices. One may stand twice.
        public let labels: [String]

        /// Trainable parameters.
        public let parameters: Int

        /// Multiply-accumulates for one picture.
        public let macs: Int

        /// Where the weights come from.
        public let weights: Weights
    }

    /// Where the weights come from.
    public struct Weights: Sendable, Equatable {
        /// What they are.
        public let source: WeightsSource

        /// Of that file.
        public let sha256: String

        /// Which part of the file, such as averaged weights.
        public let part: String?

        /// Of weights that were drawn.
        public let seed: Int?
    }

    /// A source of weights.
    public enum WeightsSource: String, Sendable, CaseIterable {
        /// A user's training.
        case checkpoint

        /// The project's sample weights, which know drawn scenes only.
        case sample

        /// Drawn at random: the predictions mean nothing.
        case untrained
    }

    /// What every artifact takes: the bytes of an RGB picture.
    public struct Input: Sendable, Equatable {
        /// In the artifact.
        public let name: String

        /// Of `uint8[1, height, width, 3]`.
        public let size: ImageSize

        /// How a picture becomes the input.
        public let resize: Resize

        /// For information: it is part of every artifact's graph.
        public let normalization: Normalization
    }

    /// How a picture becomes the input, see ``Fit``. The colors and ratios of the rules are constants.
    public struct Resize: Sendable, Equatable {
        /// The rule.
        public let rule: ResizeRule

        /// What letterbox pads with.
        public let padColor: Rgb?

        /// What a center crop covers of the input, as a fraction: 9, 8.
        public let coverRatio: [Int]?
    }

    /// What the artifacts' graphs do with the input first: (byte / 255 - mean) / std, for red, green and blue.
    public struct Normalization: Sendable, Equatable {
        /// Three.
        public let mean: [Double]

        /// Three.
        public let std: [Double]
    }

    /// An output, of float32.
    public struct Output: Sendable, Equatable {
        /// In the artifact.
        public let name: String

        /// Two to four sides, the first is 1.
        public let shape: [Int]

        /// In words.
        public let meaning: String
    }

    /// The task's constants; those of other tasks are nil.
    public struct Postprocess: Sendable, Equatable {
        /// So many classes are told.
        public let topK: Int?

        /// By scale, finest first, in input pixels.
        public let anchors: [[Anchor]]?

        /// The scales', in input pixels.
        public let strides: [Int]?

        /// 0..1.
        public let scoreThreshold: Double?

        /// 0..1.
        public let iouThreshold: Double?

        /// At least 1.
        public let maxDetections: Int?

        /// A color for each class.
        public let palette: [Rgb]?
    }

    /// One converted model: a file, or a directory for ``ArtifactFormat/coreml``.
    public struct Artifact: Sendable, Equatable {
        /// What it is.
        public let format: ArtifactFormat

        /// Its path below the bundle.
        public let file: String

        /// Of the file; of a directory, of the lines `SHA256  PATH` of its files, in the order of their paths' bytes.
        public let sha256: String

        /// Of all its files.
        public let sizeBytes: Int

        /// Such as "uint8".
        public let inputDtype: String

        /// Such as "NHWC".
        public let inputLayout: String

        /// What a runtime must support, such as "minimum_ios": "17". Texts and numbers, as they are written.
        public let requires: [String: String]

        /// The tools that made it, with their versions.
        public let tools: [String: String]

        /// What of it is in int8.
        public let quantization: Quantization?
    }

    /// What of an artifact is in int8.
    public struct Quantization: Sendable, Equatable {
        /// The size of the same artifact in fp32.
        public let fp32SizeBytes: Int

        /// The artifact's size by that in fp32.
        public let sizeRatio: Double

        /// The processor that it is for: "arm" or "x86".
        public let target: String?

        /// How the activations' ranges were chosen.
        public let ranges: Ranges?

        /// Multiply-accumulates.
        public let macs: Int8Share

        /// Operators.
        public let ops: Int8Share

        /// Bytes that operators read and write.
        public let movedBytes: Int8Share

        /// Bytes of weights.
        public let weights: Int8Share

        /// Pairs of quantization and dequantization.
        public let qdqPairs: Int

        /// The largest of them.
        public let floatIslands: [FloatIsland]

        /// All of them.
        public let floatIslandCount: Int
    }

    /// How the activations' ranges were chosen.
    public struct Ranges: Sendable, Equatable {
        /// Such as "percentile".
        public let method: String

        /// What each method reached on held-out pictures, in dB; nil where it is not finite.
        public let snrDb: [String: Double?]
    }

    /// How much of something is in int8.
    public struct Int8Share: Sendable, Equatable {
        /// So many of them.
        public let int8: Int

        /// How many there are.
        public let all: Int

        /// 0..1.
        public let share: Double
    }

    /// Float operators that are connected, between int8 ones.
    public struct FloatIsland: Sendable, Equatable {
        /// How many operators.
        public let ops: Int

        /// Their multiply-accumulates.
        public let macs: Int

        /// How many of each kind.
        public let kinds: [String: Int]

        /// The name of the first.
        public let first: String
    }

    /// The pictures that the activations' ranges are from.
    public struct Calibration: Sendable, Equatable {
        /// "synthetic", or a folder's name.
        public let source: String

        /// How many.
        public let pictures: Int

        /// Of the choice among them.
        public let seed: Int

        /// Files that were no readable picture.
        public let skipped: Int
    }

    /// How the recipe was found.
    public struct Auto: Sendable, Equatable {
        /// In points of the metric.
        public let maxDrop: Double

        /// Such as "top-1".
        public let metric: String

        /// How many pictures it was measured on.
        public let pictures: Int

        /// The reference model's.
        public let reference: Double

        /// The recipe that was taken.
        public let recipe: String

        /// What stays float.
        public let floatParts: [FloatPart]

        /// The recipes that were tried.
        public let tried: [String]
    }

    /// A part of the model that stays float.
    public struct FloatPart: Sendable, Equatable {
        /// Its place in the model.
        public let path: String

        /// Its multiply-accumulates.
        public let macs: Int

        /// What rounding it alone does to the outputs, of their power.
        public let noise: Double
    }

    /// A golden input and what the reference model returns for it.
    public struct Golden: Sendable, Equatable {
        /// A PNG of the input's size: the byte image itself.
        public let input: FileEntry

        /// By output name: little-endian float32 values in the output's shape.
        public let outputs: [String: FileEntry]
    }

    /// A file of the bundle.
    public struct FileEntry: Sendable, Equatable {
        /// Its path below the bundle.
        public let file: String

        /// Of its content.
        public let sha256: String
    }

    /// An artifact against the reference model on the golden inputs.
    public struct Parity: Sendable, Equatable {
        /// What ran it.
        public let engine: String

        /// How many inputs.
        public let images: Int

        /// Whether every bound was kept.
        public let passed: Bool

        /// By name: relative_max, snr_db, agreement.
        public let tolerance: [String: Double]

        /// Figures by output and name; nil where one is not finite.
        public let outputs: [String: [String: Double?]]

        /// Of the task's results.
        public let agreement: ParityAgreement
    }

    /// How much of the task's results agree.
    public struct ParityAgreement: Sendable, Equatable {
        /// Which results.
        public let name: String

        /// 0..1.
        public let share: Double
    }

    // MARK: - Reading

    /// The name of a bundle's manifest.
    static let file = "manifest.json"

    static let maxBytes = 16 << 20

    /// Reads and checks a bundle's manifest.
    ///
    /// - Throws: ``XFormerError/bundle(_:)`` when there is no bundle, or its manifest is not JSON, no manifest, of a
    ///   newer major version, or contradicts itself.
    public static func read(_ directory: URL) throws -> Manifest {
        guard isDirectory(directory) else {
            throw XFormerError.bundle("no bundle at \(directory.path): no such directory; xformer-export makes one")
        }
        let url = directory.appendingPathComponent(file)
        guard isRegularFile(url) else {
            throw XFormerError.bundle("\(directory.path) is not a bundle: it has no \(file)")
        }
        let content: Data
        do {
            content = try readAtMost(maxBytes + 1, of: url)
        } catch {
            throw XFormerError.bundle("can't read \(url.path): \(oneLine(error))")
        }
        return try parse(content, name: url.path)
    }

    /// Reads and checks a manifest; `name` is what messages call it.
    static func parse(_ content: Data, name: String) throws -> Manifest {
        guard content.count <= maxBytes else {
            throw XFormerError.bundle("\(name) has more than \(maxBytes) bytes; a manifest is smaller")
        }
        do {
            let document = JsonField(document: try Json.parse(content))
            try checkVersion(document)
            let manifest = try Manifest(document)
            try manifest.checkConsistency()
            return manifest
        } catch let problem as JsonProblem {
            throw XFormerError.bundle("\(name) is not JSON: \(problem.message)")
        } catch let problem as ManifestProblem {
            throw XFormerError.bundle("\(name) \(problem.message)")
        }
    }
}
