import Foundation

/// What the tests make Core ML do, and what it was asked for. Not of Apple's.
public enum CoreMLDouble {
    /// A call of Core ML.
    public enum Call: Equatable, Sendable {
        case compile
        case load(MLComputeUnits)
        case predict
        case plan(MLComputeUnits)
    }

    private static let lock = NSLock()
    nonisolated(unsafe) private static var noted: [Call] = []

    /// The calls since the last ``reset()``.
    public static var calls: [Call] { lock.withLock { noted } }

    /// What a prediction returns instead of the model's own outputs, which nil leaves as they are.
    nonisolated(unsafe) public static var predict: ((CVPixelBuffer) throws -> [String: MLFeatureValue])?

    /// What making a compute plan throws.
    nonisolated(unsafe) public static var planFailure: (any Error)?

    public static func reset() {
        lock.withLock { noted = [] }
        predict = nil
        planFailure = nil
        CoreVideoDouble.createFailure = nil
        CoreVideoDouble.lockFailure = nil
    }

    static func note(_ call: Call) {
        lock.withLock { noted.append(call) }
    }
}

/// A model of this double: the file `double.json` in a .mlpackage, and in the .mlmodelc that it is compiled to.
public struct DoubleModel: Codable {
    public struct Output: Codable {
        public var name: String
        public var shape: [Int]
        public var dataType = "float32"
        public var padding = 0
        public var spacing = 1

        public init(name: String, shape: [Int]) {
            self.name = name
            self.shape = shape
        }
    }

    /// An operation of the program. `device`: "cpu", "gpu", "neuralEngine", or nil for one that is not computed.
    public struct Operation: Codable {
        public var name: String
        public var device: String?
        public var cost: Double?
        public var inner: [Operation] = []

        public init(name: String, device: String? = nil, cost: Double? = nil, inner: [Operation] = []) {
            self.name = name
            self.device = device
            self.cost = cost
            self.inner = inner
        }
    }

    public var width: Int
    public var height: Int
    public var inputs = ["image"]
    public var takesImage = true
    public var outputs: [Output]
    public var isProgram = true
    public var operations: [Operation] = []

    public init(width: Int, height: Int, outputs: [Output]) {
        self.width = width
        self.height = height
        self.outputs = outputs
    }

    static let file = "double.json"

    /// Writes a package, with weights that no one reads.
    public func write(to package: URL) throws {
        let weights = package.appendingPathComponent("Data/com.apple.CoreML/weights")
        try FileManager.default.createDirectory(at: weights, withIntermediateDirectories: true)
        try Data(repeating: 7, count: 1000).write(to: weights.appendingPathComponent("weight.bin"))
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        try encoder.encode(self).write(to: package.appendingPathComponent(Self.file))
    }

    static func compile(_ package: URL) throws -> URL {
        let name = package.deletingPathExtension().lastPathComponent
        let content = try? Data(contentsOf: package.appendingPathComponent(file))
        guard let content, (try? JSONDecoder().decode(DoubleModel.self, from: content)) != nil else {
            throw MLModelError(.io, "Failed to read the model package at\n  \(package.path).")
        }
        let parent = FileManager.default.temporaryDirectory.appendingPathComponent("double-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: parent, withIntermediateDirectories: true)
        let compiled = parent.appendingPathComponent(name + ".mlmodelc")
        try FileManager.default.copyItem(at: package, to: compiled)
        return compiled
    }

    init(compiled: URL) throws {
        do {
            self = try JSONDecoder().decode(
                DoubleModel.self, from: Data(contentsOf: compiled.appendingPathComponent(Self.file)))
        } catch {
            throw MLModelError(.io, "Unable to load model: \(compiled.path).\nCompile the model with Xcode.")
        }
    }

    /// The outputs by name: ``values(of:means:)`` of the picture's means.
    func outputs(for picture: CVPixelBuffer) throws -> [String: MLFeatureValue] {
        guard CVPixelBufferGetPixelFormatType(picture) == kCVPixelFormatType_32BGRA,
            CVPixelBufferGetWidth(picture) == width, CVPixelBufferGetHeight(picture) == height
        else { throw MLModelError(.featureType, "Image is not in the recognized formats.") }
        let means = Self.means(of: picture)
        var found = ["classLabel": MLFeatureValue(string: "a label")]
        for output in outputs {
            let type: MLMultiArrayDataType =
                ["float16": .float16, "double": .double, "int32": .int32][output.dataType] ?? .float32
            found[output.name] = MLFeatureValue(
                multiArray: MLMultiArray(
                    shape: output.shape, values: Self.values(of: output, means: means), dataType: type,
                    padding: output.padding, spacing: output.spacing))
        }
        return found
    }

    /// What an output holds for a picture whose red, green and blue have these means, 0..255.
    public static func values(of output: Output, means: [Float]) -> [Float] {
        (0..<output.shape.reduce(1, *)).map { means[$0 % 3] / 64 - Float($0 % 7) }
    }

    private static func means(of picture: CVPixelBuffer) -> [Float] {
        CVPixelBufferLockBaseAddress(picture, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(picture, .readOnly) }
        guard let start = CVPixelBufferGetBaseAddress(picture) else { return [0, 0, 0] }
        let (width, height) = (CVPixelBufferGetWidth(picture), CVPixelBufferGetHeight(picture))
        var sums = [0, 0, 0]
        for y in 0..<height {
            let row = start.advanced(by: y * CVPixelBufferGetBytesPerRow(picture)).assumingMemoryBound(to: UInt8.self)
            for x in 0..<width {
                precondition(row[4 * x + 3] == 255, "the picture is not opaque")
                for channel in 0..<3 { sums[channel] += Int(row[4 * x + 2 - channel]) }
            }
        }
        return sums.map { Float($0) / Float(width * height) }
    }
}
