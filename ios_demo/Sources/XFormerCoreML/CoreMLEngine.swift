#if canImport(CoreML)
import CoreML
import CoreVideo
import Foundation
import XFormerCore

/// Runs a compiled Core ML model whose input is an image.
///
/// Core ML computes where it likes among the ``ComputeUnits``: the report's `used` is nil unless the CPU is the only
/// choice. Outputs may be float16 or float32, with padded strides; they are read as what they are.
public final class CoreMLEngine: Engine, @unchecked Sendable {
    /// What it is and how it was opened.
    public let report: EngineReport

    /// What it loaded: the same model is opened again, without compiling, by ``init(_:for:computeUnits:)``.
    public let compiled: CompiledModel

    private let computeUnits: ComputeUnits
    private let outputShapes: [String: [Int]]
    private let input: Input

    /// Held while the model runs; `model` is nil once it is closed.
    private let lock = NSLock()
    private var model: MLModel?

    /// Loads a compiled model. Blocks, for seconds where the system prepares the model for the Neural Engine the first
    /// time. `notes` go to the report.
    ///
    /// - Throws: ``XFormerCore/XFormerError/bundle(_:)`` when Core ML refuses the model, or it takes another picture
    ///   than the manifest declares, or lacks an output.
    public init(
        _ compiled: CompiledModel, for bundle: ModelBundle, computeUnits: ComputeUnits = .all
    ) throws {
        let name = compiled.url.lastPathComponent
        let loaded: MLModel
        do {
            loaded = try MLModel(contentsOf: compiled.url, configuration: computeUnits.configuration)
        } catch {
            throw XFormerError.bundle("Core ML refuses \(name): \(oneLine(error))")
        }
        self.compiled = compiled
        self.computeUnits = computeUnits
        outputShapes = bundle.outputShapes
        input = try Input(loaded.modelDescription, imageSize: bundle.imageSize)
        try Self.checkOutputs(loaded.modelDescription, declared: bundle.outputShapes)
        model = loaded
        report = EngineReport(
            engine: "coreml", version: ProcessInfo.processInfo.operatingSystemVersionString, format: .coreml,
            requested: computeUnits.rawValue, used: computeUnits == .cpuOnly ? computeUnits.rawValue : nil,
            notes: compiled.notes + Self.notes(computeUnits))
    }

    /// Compiles a bundle's artifact, or takes what an earlier call compiled, and loads it. One that was kept and is
    /// refused is compiled once more.
    ///
    /// - Throws: as ``init(_:for:computeUnits:)``, and ``XFormerCore/XFormerError/bundle(_:)`` when the artifact is
    ///   missing, is not the manifest's, or can't be compiled; ``XFormerCore/XFormerError/usage(_:)`` when the bundle
    ///   has no Core ML model.
    public static func open(
        _ bundle: ModelBundle, computeUnits: ComputeUnits = .all, models: CompiledModels = CompiledModels()
    ) async throws -> CoreMLEngine {
        try await open(bundle, computeUnits: computeUnits, models: models, worker: Worker())
    }

    /// What blocks is done by `worker`.
    static func open(
        _ bundle: ModelBundle, computeUnits: ComputeUnits, models: CompiledModels, worker: Worker
    ) async throws -> CoreMLEngine {
        let artifact = try await worker.run { _ in try bundle.artifact(.coreml) }
        let compiled = try await models.model(for: artifact)
        do {
            return try await worker.run { _ in
                try CoreMLEngine(compiled, for: bundle, computeUnits: computeUnits)
            }
        } catch XFormerError.bundle where compiled.isReused && compiled.url != artifact.url {
            models.forget(artifact)
            let anew = try await models.model(for: artifact)
            return try await worker.run { _ in try CoreMLEngine(anew, for: bundle, computeUnits: computeUnits) }
        }
    }

    /// On what processors Core ML expects to run the model; nil before iOS 17.4 and macOS 14.4.
    ///
    /// - Throws: ``XFormerCore/XFormerError/engine(_:)`` when Core ML makes no plan.
    public func computePlan() async throws -> ComputePlan? {
        try await ComputePlan.load(compiled, computeUnits: computeUnits)
    }

    private static func notes(_ units: ComputeUnits) -> [String] {
        switch units {
        case .cpuOnly: []
        default: ["Core ML chooses among these processors for each operation; its compute plan tells what it prefers"]
        }
    }

    private static func checkOutputs(_ description: MLModelDescription, declared: [String: [Int]]) throws {
        let found = description.outputDescriptionsByName
        for name in declared.keys.sorted() where found[name]?.type != .multiArray {
            throw XFormerError.bundle(
                "the model has no array '\(name)' among its outputs \(found.keys.sorted()), the manifest declares it; "
                    + "export it again")
        }
    }

    /// Runs the model.
    ///
    /// - Throws: ``XFormerCore/XFormerError/engine(_:)`` when Core ML fails; ``XFormerCore/XFormerError/bundle(_:)`` for
    ///   an output that is missing or of another type than float; ``XFormerCore/XFormerError/image(_:)`` for a picture
    ///   of another size; ``XFormerCore/XFormerError/usage(_:)`` when it is closed.
    public func run(_ image: RgbImage) throws -> Outputs {
        try lock.withLock {
            guard let model else { throw XFormerError.usage("the engine is closed; open the bundle again") }
            // What Core ML returns is autoreleased: without a pool, a benchmark would keep the outputs of every run.
            return try autoreleasepool {
                let features = try input.features(of: image)
                let found: any MLFeatureProvider
                do {
                    found = try model.prediction(from: features)
                } catch {
                    throw XFormerError.engine("Core ML failed: \(oneLine(error))")
                }
                return try outputs(of: found)
            }
        }
    }

    private func outputs(of found: any MLFeatureProvider) throws -> Outputs {
        var outputs: Outputs = [:]
        for name in outputShapes.keys {
            guard let array = found.featureValue(for: name)?.multiArrayValue else {
                throw XFormerError.bundle(
                    "Core ML returned no array '\(name)' but \(found.featureNames.sorted()); the manifest declares it")
            }
            outputs[name] = try Tensor(shape: array.shape.map(\.intValue), values: floats(of: array, name: name))
        }
        return outputs
    }

    /// Frees the model when the run that has begun, if any, is done.
    public func close() {
        lock.withLock { model = nil }
    }
}

/// The model's only input, and the pixel buffer that each picture is written to.
private struct Input {
    let name: String
    let buffer: CVPixelBuffer

    init(_ description: MLModelDescription, imageSize: ImageSize) throws {
        let inputs = description.inputDescriptionsByName
        guard let (name, feature) = inputs.first, inputs.count == 1 else {
            throw XFormerError.bundle("the model has \(inputs.count) inputs; a picture is one")
        }
        guard let constraint = feature.imageConstraint, constraint.pixelsWide == imageSize.width,
            constraint.pixelsHigh == imageSize.height
        else {
            let found = feature.imageConstraint.map { "an image of \($0.pixelsHigh)x\($0.pixelsWide)" } ?? "no image"
            throw XFormerError.bundle("the model takes \(found) as '\(name)'; the manifest declares \(imageSize)")
        }
        self.name = name
        // Memory that the GPU and the Neural Engine can read, too.
        let attributes = NSDictionary(object: NSDictionary(), forKey: kCVPixelBufferIOSurfacePropertiesKey as NSString)
        var made: CVPixelBuffer?
        let status = CVPixelBufferCreate(
            kCFAllocatorDefault, imageSize.width, imageSize.height, kCVPixelFormatType_32BGRA,
            attributes as CFDictionary, &made)
        guard status == kCVReturnSuccess, let made else {
            throw XFormerError.engine("there is no memory for a picture of \(imageSize): error \(status)")
        }
        buffer = made
    }

    /// Writes a picture to the buffer.
    func features(of image: RgbImage) throws -> any MLFeatureProvider {
        let width = CVPixelBufferGetWidth(buffer)
        let height = CVPixelBufferGetHeight(buffer)
        guard image.width == width, image.height == height else {
            throw XFormerError.image(
                "got a picture of \(image.height)x\(image.width); the model takes \(height)x\(width)")
        }
        let status = CVPixelBufferLockBaseAddress(buffer, [])
        guard status == kCVReturnSuccess, let start = CVPixelBufferGetBaseAddress(buffer) else {
            throw XFormerError.engine("the picture's memory can't be written: error \(status)")
        }
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        let bytesPerRow = CVPixelBufferGetBytesPerRow(buffer)
        image.bytes.withUnsafeBufferPointer { bytes in
            var from = 0
            for y in 0..<height {
                let row = start.advanced(by: y * bytesPerRow).assumingMemoryBound(to: UInt8.self)
                for x in 0..<width {
                    row[4 * x] = bytes[from + 2]
                    row[4 * x + 1] = bytes[from + 1]
                    row[4 * x + 2] = bytes[from]
                    row[4 * x + 3] = 255
                    from += 3
                }
            }
        }
        do {
            return try MLDictionaryFeatureProvider(dictionary: [name: MLFeatureValue(pixelBuffer: buffer)])
        } catch {
            throw XFormerError.engine("Core ML takes no picture: \(oneLine(error))")
        }
    }
}

// MARK: - Outputs

/// An array's values in float32, row-major, whatever its own type and strides are.
private func floats(of array: MLMultiArray, name: String) throws -> [Float] {
    let shape = array.shape.map(\.intValue)
    let strides = array.strides.map(\.intValue)
    guard shape.count == strides.count, shape.allSatisfy({ $0 >= 1 }), strides.allSatisfy({ $0 >= 0 }) else {
        throw XFormerError.bundle("Core ML returned '\(name)' with the shape \(shape) and the strides \(strides)")
    }
    return try array.withUnsafeBytes { bytes in
        switch array.dataType {
        case .float16: try gather(bytes, shape, strides, name) { (value: UInt16) in float(ofHalf: value) }
        case .float32: try gather(bytes, shape, strides, name) { (value: Float) in value }
        case .double: try gather(bytes, shape, strides, name) { (value: Double) in Float(value) }
        default:
            throw XFormerError.bundle(
                "Core ML returned '\(name)' with the data type \(array.dataType.rawValue); floats are needed")
        }
    }
}

/// Reads scalars that are `strides` apart along each axis of `shape`, the last axis innermost.
private func gather<Scalar: BitwiseCopyable>(
    _ bytes: UnsafeRawBufferPointer, _ shape: [Int], _ strides: [Int], _ name: String, _ convert: (Scalar) -> Float
) throws -> [Float] {
    let count = shape.reduce(1, *)
    let size = MemoryLayout<Scalar>.size
    // Whether the size that Core ML states counts the padding behind the last row is not documented.
    guard let start = bytes.baseAddress, bytes.count >= count * size else {
        throw XFormerError.bundle(
            "Core ML returned '\(name)' with \(bytes.count) bytes; \(shape) needs \(count * size)")
    }
    let across = shape.last ?? 1
    let step = (strides.last ?? 1) * size
    return [Float](unsafeUninitializedCapacity: count) { values, written in
        var place = [Int](repeating: 0, count: max(shape.count - 1, 0))
        var row = 0
        while written < count {
            for x in 0..<across {
                values[written + x] = convert(start.loadUnaligned(fromByteOffset: row + x * step, as: Scalar.self))
            }
            written += across
            var axis = place.count - 1
            while axis >= 0 {
                place[axis] += 1
                row += strides[axis] * size
                if place[axis] < shape[axis] { break }
                row -= place[axis] * strides[axis] * size
                place[axis] = 0
                axis -= 1
            }
        }
    }
}

/// IEEE 754 binary16 to binary32, exactly. Swift's own `Float16` is missing on Macs with Intel processors.
func float(ofHalf bits: UInt16) -> Float {
    let sign = UInt32(bits & 0x8000) << 16
    let rest = UInt32(bits & 0x7FFF) << 13
    if bits & 0x7C00 == 0x7C00 { return Float(bitPattern: sign | 0x7F80_0000 | rest) }
    // As it stands, the exponent is too small by the difference of the biases, 127 - 15.
    return Float(bitPattern: sign | (Float(bitPattern: rest) * 0x1p112).bitPattern)
}
#endif
