import COnnxRuntime
import Glibc
import XFormerCore

/// Runs .onnx and .ort files in ONNX Runtime, on the CPU, so that the whole pipeline runs on Linux on real models.
///
/// The library is loaded from the path in the environment variable XFORMER_ONNXRUNTIME.
public final class OnnxRuntimeEngine: Engine, @unchecked Sendable {
    /// What it is and how it was opened.
    public let report: EngineReport

    private let library: Library
    private let inputName: String
    private let inputShape: [Int64]
    private let outputNames: [String]
    private var session: Owned?  // nil once it is closed

    /// Opens the bundle's artifact of a format. In bundles of the precision int8-weights, the weights are unpacked when
    /// the model is loaded, where it would else be done in each run.
    ///
    /// - Throws: as ``init(artifact:imageSize:threads:unpackWeights:)``.
    public convenience init(bundle: ModelBundle, format: ArtifactFormat, threads: Int? = nil) throws {
        try self.init(
            artifact: bundle.artifact(format), imageSize: bundle.imageSize, threads: threads,
            unpackWeights: bundle.precision == "int8-weights")
    }

    /// Opens a .onnx or .ort file. `threads` within an operator; nil leaves the choice to ONNX Runtime.
    ///
    /// - Throws: ``XFormerError/bundle(_:)`` when ONNX Runtime refuses the file, or it takes no such picture;
    ///   ``XFormerError/engine(_:)`` when ONNX Runtime is not there; ``XFormerError/usage(_:)`` for a format that it
    ///   does not run, or too many threads.
    public init(artifact: Artifact, imageSize: ImageSize, threads: Int? = nil, unpackWeights: Bool = false) throws {
        guard [.onnx, .ort].contains(artifact.format) else {
            throw XFormerError.usage("ONNX Runtime does not run \(artifact.format.rawValue); it runs onnx, ort")
        }
        guard (1...256).contains(threads ?? 1) else {
            throw XFormerError.usage("\(threads ?? 0) threads are not valid; valid: 1 to 256")
        }
        let library = try Library.load()
        let api = library.api
        let options = try Self.options(api, artifact.format, threads, unpackWeights)
        let path = artifact.url.path
        let session = try api.make(
            api.ReleaseSession, { .bundle("ONNX Runtime refuses \(path): \($0)") },
            by: { api.CreateSession(library.environment.pointer, path, options.pointer, $0) })
        inputShape = [1, Int64(imageSize.height), Int64(imageSize.width), 3]
        inputName = try Self.input(of: session, api, shape: inputShape)
        outputNames = try Self.names(of: session, api, api.SessionGetOutputCount, api.SessionGetOutputName)
        report = EngineReport(
            engine: "onnxruntime", version: library.version, format: artifact.format, requested: "cpu", used: "cpu",
            threads: threads, notes: unpackWeights ? ["int8 weights are unpacked when the model is loaded"] : [])
        self.library = library
        self.session = session
    }

    private static func options(
        _ api: OrtApi, _ format: ArtifactFormat, _ threads: Int?, _ unpackWeights: Bool
    ) throws -> Owned {
        let options = try api.make(api.ReleaseSessionOptions, failed) { api.CreateSessionOptions($0) }
        let severity = Int32(ORT_LOGGING_LEVEL_ERROR.rawValue)
        try api.check(api.SetSessionLogSeverityLevel(options.pointer, severity), failed)
        var entries = ["session.load_model_format": format == .ort ? "ORT" : "ONNX"]
        if unpackWeights { entries["session.disable_quant_qdq"] = "1" }
        for (name, value) in entries {
            try api.check(api.AddSessionConfigEntry(options.pointer, name, value), failed)
        }
        if let threads { try api.check(api.SetIntraOpNumThreads(options.pointer, Int32(threads)), failed) }
        return options
    }

    /// The name of the model's only input, which must take bytes of that shape.
    private static func input(of session: Owned, _ api: OrtApi, shape: [Int64]) throws -> String {
        let names = try names(of: session, api, api.SessionGetInputCount, api.SessionGetInputName)
        guard names.count == 1 else {
            throw XFormerError.bundle("the model has \(names.count) inputs; a picture is one")
        }
        let type = try api.make(api.ReleaseTypeInfo, failed) { api.SessionGetInputTypeInfo(session.pointer, 0, $0) }
        var tensor: OpaquePointer?  // part of the type
        try api.check(api.CastTypeInfoToTensorInfo(type.pointer, &tensor), failed)
        guard let tensor else { throw XFormerError.bundle("the model's input '\(names[0])' is no tensor") }
        let found = try describe(tensor, api)
        guard found.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, found.shape == shape else {
            throw XFormerError.bundle(
                "the model takes elements of type \(found.type.rawValue) and shape \(found.shape) as '\(names[0])'; "
                    + "the manifest declares uint8, which is \(ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8.rawValue), of "
                    + "\(shape)")
        }
        return names[0]
    }

    private static func describe(
        _ tensor: OpaquePointer, _ api: OrtApi
    ) throws -> (type: ONNXTensorElementDataType, shape: [Int64]) {
        var type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED
        try api.check(api.GetTensorElementType(tensor, &type), failed)
        var count = 0
        try api.check(api.GetDimensionsCount(tensor, &count), failed)
        var shape = [Int64](repeating: 0, count: count)
        try api.check(api.GetDimensions(tensor, &shape, count), failed)
        return (type, shape)
    }

    private static func names(
        of session: Owned, _ api: OrtApi,
        _ getCount: @convention(c) (OpaquePointer?, UnsafeMutablePointer<Int>?) -> OrtStatusPtr?,
        _ getName: @convention(c) (
            OpaquePointer?, Int, UnsafeMutablePointer<OrtAllocator>?,
            UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
        ) -> OrtStatusPtr?
    ) throws -> [String] {
        var allocator: UnsafeMutablePointer<OrtAllocator>?
        try api.check(api.GetAllocatorWithDefaultOptions(&allocator), failed)
        var count = 0
        try api.check(getCount(session.pointer, &count), failed)
        return try (0..<count).map { index in
            var name: UnsafeMutablePointer<CChar>?
            try api.check(getName(session.pointer, index, allocator, &name), failed)
            defer { try? api.check(api.AllocatorFree(allocator, name), failed) }
            return name.map { String(cString: $0) } ?? ""
        }
    }

    private static func failed(_ words: String) -> XFormerError { .engine("ONNX Runtime failed: \(words)") }

    /// Runs the model. The caller sees to it that the picture is of the input's size, as ``CheckedEngine`` does.
    ///
    /// - Throws: ``XFormerError/engine(_:)`` when ONNX Runtime fails; ``XFormerError/bundle(_:)`` when an output is not
    ///   of float32; ``XFormerError/usage(_:)`` when it is closed.
    public func run(_ image: RgbImage) throws -> Outputs {
        guard let session else { throw XFormerError.usage("the engine is closed; open the bundle again") }
        let api = library.api
        let memory = try api.make(api.ReleaseMemoryInfo, Self.failed) {
            api.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, $0)
        }
        let outputs = try image.bytes.withUnsafeBytes { bytes in
            let input = try api.make(api.ReleaseValue, Self.failed) {
                api.CreateTensorWithDataAsOrtValue(
                    memory.pointer, UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count,  // only read
                    inputShape, inputShape.count, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, $0)
            }
            return try run(session, input)
        }
        return try Dictionary(
            uniqueKeysWithValues: zip(outputNames, outputs).map { ($0, try tensor($1, named: $0)) })
    }

    private func run(_ session: Owned, _ input: Owned) throws -> [Owned] {
        let api = library.api
        let names = ([inputName] + outputNames).map { strdup($0) }
        defer { names.forEach { free($0) } }
        let pointers = names.map { UnsafePointer<CChar>($0) }
        let inputs = [Optional(input.pointer)]
        var outputs = [OpaquePointer?](repeating: nil, count: outputNames.count)
        let status = pointers.withUnsafeBufferPointer { names in
            api.Run(
                session.pointer, nil, names.baseAddress, inputs, 1, names.baseAddress! + 1, outputs.count, &outputs)
        }
        let owned = outputs.compactMap { $0.map { Owned($0, api.ReleaseValue) } }
        try api.check(status, Self.failed)
        guard owned.count == outputNames.count else { throw Self.failed("an output is missing") }
        return owned
    }

    private func tensor(_ value: Owned, named name: String) throws -> Tensor {
        let api = library.api
        let info = try api.make(api.ReleaseTensorTypeAndShapeInfo, Self.failed) {
            api.GetTensorTypeAndShape(value.pointer, $0)
        }
        let found = try Self.describe(info.pointer, api)
        guard found.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT else {
            throw XFormerError.bundle(
                "ONNX Runtime returned '\(name)' with elements of type \(found.type.rawValue); float32 is needed")
        }
        var count = 0
        try api.check(api.GetTensorShapeElementCount(info.pointer, &count), Self.failed)
        var data: UnsafeMutableRawPointer?
        try api.check(api.GetTensorMutableData(value.pointer, &data), Self.failed)
        let values = UnsafeBufferPointer(start: data?.assumingMemoryBound(to: Float.self), count: count)
        return try Tensor(shape: found.shape.map { Int($0) }, values: Array(values))
    }

    /// Releases the model. Closing again changes nothing.
    public func close() { session = nil }
}
