import Foundation
import XFormerCore
import XFormerCoreML

/// A bundle that is open in Core ML.
struct CoreMLModel: DemoModel {
    private let xformer: XFormer

    let palette: [Rgb]

    /// Opens the model of a choice, which takes seconds.
    ///
    /// - Throws: ``XFormerError`` when the bundle or the engine can't be used.
    static func open(_ choice: Choice, of bundles: BundleStore) async throws -> CoreMLModel {
        let stored = try bundles.find(choice.bundle)
        let xformer = try await XFormer(bundle: stored.directory, options: .init(computeUnits: choice.units))
        return CoreMLModel(xformer: xformer, palette: try xformer.bundle.postprocess().palette)
    }

    var report: EngineReport { xformer.report }

    var weights: Manifest.WeightsSource { xformer.bundle.manifest.model.weights.source }

    func predict(_ frame: LiveFrame, mapSize: PixelSize) async throws -> TimedPrediction {
        try await xformer.predictTimed(frame.pixels, orientation: frame.geometry.orientation, mapSize: mapSize)
    }

    func predict(_ picture: Picture, mapSize: PixelSize) async throws -> TimedPrediction {
        try await xformer.predictTimed(picture.image, orientation: picture.orientation, mapSize: mapSize)
    }

    func close() async {
        await xformer.close()
    }
}

/// This device, with Core ML.
struct CoreMLDevice: BenchmarkDevice {
    func machine() throws -> LatencyRun.Machine { try DeviceInfo().machine() }

    var probe: any BenchmarkProbe { DeviceInfo() }

    var decode: PictureDecoder { Pictures.decoder }

    func prepare(_ bundle: ModelBundle) async throws -> @Sendable (BenchmarkTarget) throws -> any Engine {
        // Compiling is done once, by whoever opens a model first: it is no part of loading it.
        let compiled = try await CompiledModels().model(for: bundle.artifact(.coreml))
        return { target in try CoreMLEngine(compiled, for: bundle, computeUnits: target.units) }
    }
}
