import CoreVideo
import XFormerCore
import XFormerCoreML

/// One picture of the camera. Nobody writes to a buffer that the camera has delivered, so it may go to another thread.
struct LiveFrame: @unchecked Sendable {
    /// As the sensor lies.
    let pixels: CVPixelBuffer

    /// How it lies on the screen.
    let geometry: CameraGeometry

    /// After it is turned upright.
    var uprightSize: PixelSize {
        geometry.upright(PixelSize(width: CVPixelBufferGetWidth(pixels), height: CVPixelBufferGetHeight(pixels)))
    }
}

/// A model that the app has opened. A protocol, so that the screens' states run without Core ML.
protocol DemoModel: Sendable {
    /// The engine, and what it really uses.
    var report: EngineReport { get }

    /// Where the weights come from.
    var weights: Manifest.WeightsSource { get }

    /// A class map's colors; empty for other tasks.
    var palette: [Rgb] { get }

    /// What the model finds in a frame; boxes are in the upright frame's pixels, a class map is of `mapSize`.
    func predict(_ frame: LiveFrame, mapSize: PixelSize) async throws -> TimedPrediction

    /// What the model finds in a picture.
    func predict(_ picture: Picture, mapSize: PixelSize) async throws -> TimedPrediction

    /// Frees it, when what it does now is done.
    func close() async
}
