/// What an engine is and how it was opened.
public struct EngineReport: Sendable, Equatable {
    /// "coreml" or "onnxruntime".
    public let engine: String

    /// The engine's own version, or that of the system that it is part of.
    public let version: String

    /// What it loaded.
    public let format: ArtifactFormat

    /// What it was asked to compute on, such as "cpu" or "all".
    public let requested: String

    /// What it computes on; nil where that can't be told.
    public let used: String?

    /// Within an operator; nil where the engine chooses.
    public let threads: Int?

    /// For people: what runs elsewhere than requested, and why.
    public let notes: [String]

    /// A report of an engine.
    public init(
        engine: String, version: String, format: ArtifactFormat, requested: String, used: String? = nil,
        threads: Int? = nil, notes: [String] = []
    ) {
        self.engine = engine
        self.version = version
        self.format = format
        self.requested = requested
        self.used = used
        self.threads = threads
        self.notes = notes
    }
}

/// A model that is loaded. Layout, dtype and scale of the engine stay inside.
public protocol Engine: Sendable {
    /// What it is and how it was opened.
    var report: EngineReport { get }

    /// Runs the model on a picture of the input's size; returns its outputs as float32 by name.
    ///
    /// Blocks the caller's thread. Need not take calls from several threads at once; ``CheckedEngine`` does.
    func run(_ image: RgbImage) throws -> Outputs

    /// Releases the model. Closing again changes nothing.
    func close()
}
