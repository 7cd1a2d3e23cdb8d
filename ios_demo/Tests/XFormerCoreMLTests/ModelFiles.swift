#if os(Linux)
import CRawPng
import CoreML
import Foundation
import TestSupport
import XCTest
import XFormerCore

@testable import XFormerCoreML

/// A bundle whose Core ML model is the double's, and a directory for compiled models; both are gone after the test.
struct ModelFiles {
    let root: URL
    let bundle: ModelBundle
    let models: CompiledModels

    /// The options that open it.
    var options: XFormer.Options {
        XFormer.Options(cacheDirectory: models.directory, prewarm: false)
    }

    /// The bundle's model, without the padding and the types that `edit` may give it.
    static func model(of bundle: ModelBundle) -> DoubleModel {
        let outputs = bundle.outputShapes.map { DoubleModel.Output(name: $0, shape: $1) }.sorted { $0.name < $1.name }
        return DoubleModel(width: bundle.imageSize.width, height: bundle.imageSize.height, outputs: outputs)
    }

    /// A task's bundle; its model is changed by `edit`. Golden inputs are PNG, golden outputs are what the model
    /// returns for them, with `error` added.
    static func make(
        _ task: ModelTask, for test: XCTestCase, error: Float = 0, edit: (inout DoubleModel) -> Void = { _ in }
    ) throws -> ModelFiles {
        CoreMLDouble.reset()
        let root = FileManager.default.temporaryDirectory.appendingPathComponent("xformer-\(UUID().uuidString)")
        test.addTeardownBlock {
            try? FileManager.default.removeItem(at: root)
            CoreMLDouble.reset()
        }
        let directory = root.appendingPathComponent("bundle")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        var files = TestBundle(try manifest(task))
        try files.write(to: directory)
        let plain = try ModelBundle.open(directory)
        var model = model(of: plain)
        edit(&model)
        let package = directory.appendingPathComponent("model.mlpackage")
        try FileManager.default.removeItem(at: package)
        try model.write(to: package)
        for index in 0..<plain.goldenCount {
            var random = Seeded(index)
            let picture = try random.picture(plain.imageSize.width, plain.imageSize.height)
            files.store("golden/\(index)/input", try png(of: picture))
            for output in Self.model(of: plain).outputs {
                let values = DoubleModel.values(of: output, means: means(of: picture)).map { $0 + error }
                files.store("golden/\(index)/outputs/\(output.name)", Data(littleEndian: values))
            }
        }
        // The package's own files stay as they were written.
        let sum = try treeSha256(package)
        try files.write(to: directory) { $0.with("artifacts/0/sha256", .text(sum)) }
        try FileManager.default.removeItem(at: package)
        try model.write(to: package)
        return ModelFiles(
            root: root, bundle: try ModelBundle.open(directory),
            models: CompiledModels(directory: root.appendingPathComponent("cache")))
    }

    /// A task's manifest, with a Core ML model as its only artifact, and a tolerance for it.
    private static func manifest(_ task: ModelTask) throws -> Json {
        var made = try TestBundle.manifest(of: task)
        let others = try XCTUnwrap(TestBundle.manifest(of: .segment).at("artifacts")?.items)
        var artifact = try XCTUnwrap(others.first { $0.at("format")?.text == "coreml" })
        if made.at("artifacts/0/quantization") == nil { artifact = artifact.with("quantization", nil) }
        let tolerance = Json.object(["relative_max": .number("0.01"), "agreement": .number("1")])
        let parity = try XCTUnwrap(made.at("parity/onnx")).with("engine", .text("coreml")).with("tolerance", tolerance)
        made = made.with("artifacts", .list([artifact]))
        return made.with("parity", .object(["coreml": parity]))
    }

    private static func png(of picture: RgbImage) throws -> Data {
        var content = [UInt8](repeating: 0, count: 4 * picture.bytes.count + 1000)
        let size = raw_png_write(
            picture.bytes, UInt32(picture.width), UInt32(picture.height), &content, content.count)
        guard size > 0 else { throw XFormerError.image("no PNG could be written") }
        return Data(content[..<size])
    }

    /// The means of a picture's red, green and blue, as the double takes them.
    static func means(of picture: RgbImage) -> [Float] {
        var sums = [0, 0, 0]
        for (place, byte) in picture.bytes.enumerated() { sums[place % 3] += Int(byte) }
        return sums.map { Float($0) / Float(picture.width * picture.height) }
    }

    /// What the double's model returns for a picture of the input's size.
    func expected(_ picture: RgbImage) throws -> Outputs {
        var outputs: Outputs = [:]
        for output in Self.model(of: bundle).outputs {
            let values = DoubleModel.values(of: output, means: Self.means(of: picture))
            outputs[output.name] = try Tensor(shape: output.shape, values: values)
        }
        return outputs
    }

    /// A picture of the input's size.
    func picture(_ seed: Int = 1) throws -> RgbImage {
        var random = Seeded(seed)
        return try random.picture(bundle.imageSize.width, bundle.imageSize.height)
    }
}
#endif
