#if canImport(CoreML)
import CoreGraphics
import CoreVideo
import Foundation
import ImageIO
import XFormerCore

/// A bundle that is opened in Core ML: from images, pictures and camera frames to typed results.
///
///     let model = try await XFormer(bundle: url)
///     let best = try await model.classify(image).first
///
/// All work is done on a queue of its own, never on the caller's thread; calls from several tasks take turns. A call
/// that is cancelled while it waits does nothing; one that has begun ends after the phase that it is in (preprocessing,
/// the model's run, postprocessing) with `CancellationError`. When a call has returned or thrown, what it was given is
/// no longer used: a camera's buffer may go back to its pool. Times are of Core ML's run and of what this library does
/// before and after it; decoding an image is not counted, converting a camera's frame is preprocessing.
///
/// What an image is taken for is said by ``Pictures``, of a camera's buffer by ``CameraFrame``. Boxes and class maps
/// are in the pixels of the upright picture.
///
/// Every call may throw ``XFormerCore/XFormerError``: `.image` (the picture can't be used), `.bundle` (the model
/// returned what it should not), `.engine` (Core ML failed), `.usage` (it is closed, or the bundle is for another
/// task).
public final class XFormer: Sendable {
    /// How a bundle is opened.
    public struct Options: Sendable {
        /// What Core ML may choose from.
        public var computeUnits: ComputeUnits

        /// Where compiled models are kept; nil is the app's caches directory.
        public var cacheDirectory: URL?

        /// Whether the model is run once before it counts as opened: the first run is slower.
        public var prewarm: Bool

        /// How a bundle is opened.
        public init(computeUnits: ComputeUnits = .all, cacheDirectory: URL? = nil, prewarm: Bool = true) {
            self.computeUnits = computeUnits
            self.cacheDirectory = cacheDirectory
            self.prewarm = prewarm
        }
    }

    /// What is run.
    public let bundle: ModelBundle

    /// The engine, and what it was asked to use.
    public var report: EngineReport { engine.report }

    private let engine: CoreMLEngine
    private let predictor: Predictor
    private let worker: Worker

    /// Opens the bundle in a directory.
    ///
    /// The first time on a device, Core ML compiles the model, which takes seconds; the result is kept
    /// (``CompiledModels``).
    ///
    /// - Throws: ``XFormerCore/XFormerError``: `.bundle` when the directory is no bundle, its Core ML model is missing,
    ///   is not the manifest's, or is refused; `.usage` when it has no Core ML model; `.engine` when Core ML fails.
    public convenience init(bundle directory: URL, options: Options = Options()) async throws {
        let worker = Worker()
        let bundle = try await worker.run { _ in try ModelBundle.open(directory) }
        try await self.init(bundle, options: options, worker: worker)
    }

    /// Opens a bundle; see ``init(bundle:options:)``.
    public convenience init(_ bundle: ModelBundle, options: Options = Options()) async throws {
        try await self.init(bundle, options: options, worker: Worker())
    }

    private init(_ bundle: ModelBundle, options: Options, worker: Worker) async throws {
        self.bundle = bundle
        self.worker = worker
        engine = try await CoreMLEngine.open(
            bundle, computeUnits: options.computeUnits, models: CompiledModels(directory: options.cacheDirectory),
            worker: worker)
        predictor = try Predictor(bundle: bundle, engine: engine)
        if options.prewarm { try await prewarm() }
    }

    // MARK: - Images

    /// The most probable classes of an image, the most probable first. `orientation` is what its file or camera says.
    public func classify(
        _ image: CGImage, orientation: CGImagePropertyOrientation = .up
    ) async throws -> [Classification] {
        try classifications(try await run(.image(image, orientation), for: .classify))
    }

    /// The objects in an image.
    public func detect(_ image: CGImage, orientation: CGImagePropertyOrientation = .up) async throws -> [Detection] {
        try detections(try await run(.image(image, orientation), for: .detect))
    }

    /// The class of each pixel of an image.
    public func segment(_ image: CGImage, orientation: CGImagePropertyOrientation = .up) async throws -> ClassMap {
        try classMap(try await run(.image(image, orientation), for: .segment))
    }

    /// The result for an image, whatever the task is.
    public func predict(_ image: CGImage, orientation: CGImagePropertyOrientation = .up) async throws -> Prediction {
        try await run(.image(image, orientation)).prediction
    }

    /// Like ``predict(_:orientation:)``, with the time of each phase. `mapSize` is the size of a class map where it
    /// shall not be the picture's, such as a view's; other tasks ignore it.
    public func predictTimed(
        _ image: CGImage, orientation: CGImagePropertyOrientation = .up, mapSize: PixelSize? = nil
    ) async throws -> TimedPrediction {
        try await run(.image(image, orientation), mapSize: mapSize)
    }

    // MARK: - Camera frames

    /// The most probable classes of a camera's frame, which must not change until the call returns. `orientation` says
    /// how the frame is turned and mirrored.
    public func classify(
        _ frame: CVPixelBuffer, orientation: CGImagePropertyOrientation = .up,
        isolation: isolated (any Actor)? = #isolation
    ) async throws -> [Classification] {
        try classifications(try await run(.frame(frame, orientation), for: .classify))
    }

    /// The objects in a camera's frame.
    public func detect(
        _ frame: CVPixelBuffer, orientation: CGImagePropertyOrientation = .up,
        isolation: isolated (any Actor)? = #isolation
    ) async throws -> [Detection] {
        try detections(try await run(.frame(frame, orientation), for: .detect))
    }

    /// The class of each pixel of a camera's frame.
    public func segment(
        _ frame: CVPixelBuffer, orientation: CGImagePropertyOrientation = .up,
        isolation: isolated (any Actor)? = #isolation
    ) async throws -> ClassMap {
        try classMap(try await run(.frame(frame, orientation), for: .segment))
    }

    /// The result for a camera's frame, whatever the task is.
    public func predict(
        _ frame: CVPixelBuffer, orientation: CGImagePropertyOrientation = .up,
        isolation: isolated (any Actor)? = #isolation
    ) async throws -> Prediction {
        try await run(.frame(frame, orientation)).prediction
    }

    /// Like ``predict(_:orientation:isolation:)``, with the time of each phase, as for an image.
    public func predictTimed(
        _ frame: CVPixelBuffer, orientation: CGImagePropertyOrientation = .up, mapSize: PixelSize? = nil,
        isolation: isolated (any Actor)? = #isolation
    ) async throws -> TimedPrediction {
        try await run(.frame(frame, orientation), mapSize: mapSize)
    }

    // MARK: - Bytes

    /// The most probable classes of an upright picture.
    public func classify(_ image: RgbImage) async throws -> [Classification] {
        try classifications(try await run(.bytes(image), for: .classify))
    }

    /// The objects in an upright picture.
    public func detect(_ image: RgbImage) async throws -> [Detection] {
        try detections(try await run(.bytes(image), for: .detect))
    }

    /// The class of each pixel of an upright picture.
    public func segment(_ image: RgbImage) async throws -> ClassMap {
        try classMap(try await run(.bytes(image), for: .segment))
    }

    /// The result for an upright picture, whatever the task is.
    public func predict(_ image: RgbImage) async throws -> Prediction {
        try await run(.bytes(image)).prediction
    }

    /// Like ``predict(_:)``, with the time of each phase, as for an image.
    public func predictTimed(_ image: RgbImage, mapSize: PixelSize? = nil) async throws -> TimedPrediction {
        try await run(.bytes(image), mapSize: mapSize)
    }

    // MARK: - The model itself

    /// Runs the model once, on grey: the first run is slower, above all where the Neural Engine has slept.
    public func prewarm() async throws {
        let size = bundle.imageSize
        let grey = [UInt8](repeating: 114, count: 3 * size.width * size.height)
        _ = try await worker.run { [predictor] _ in
            try predictor.engine.run(RgbImage(width: size.width, height: size.height, bytes: grey))
        }
    }

    /// On what processors Core ML expects to run the model; nil before iOS 17.4 and macOS 14.4.
    ///
    /// - Throws: ``XFormerCore/XFormerError/engine(_:)`` when Core ML makes no plan.
    public func computePlan() async throws -> ComputePlan? { try await engine.computePlan() }

    /// Frees the model, when what has begun is done. A later call is a ``XFormerCore/XFormerError/usage(_:)``. Closing
    /// again changes nothing.
    public func close() async {
        await worker.finish { [predictor] in predictor.close() }
    }

    /// What a call is given. A pixel buffer is not Sendable; here it is read on one queue, while its caller waits.
    private enum Source: @unchecked Sendable {
        case image(CGImage, CGImagePropertyOrientation)
        case frame(CVPixelBuffer, CGImagePropertyOrientation)
        case bytes(RgbImage)

        func withRows<Result>(_ body: (any RowSource) throws -> Result) throws -> Result {
            switch self {
            case .image(let image, let orientation): try body(Pictures.rows(image, orientation: orientation))
            case .frame(let frame, let orientation):
                try CameraFrame.withRows(frame, orientation: orientation, body)
            case .bytes(let image): try body(image)
            }
        }
    }

    private func run(_ source: Source, for task: ModelTask) async throws -> Prediction {
        let own = bundle.task
        guard own == task else {
            throw XFormerError.usage(
                "the bundle is for the task \(own.rawValue), not \(task.rawValue); call \(own.rawValue) or predict")
        }
        return try await run(source).prediction
    }

    private func run(_ source: Source, mapSize: PixelSize? = nil) async throws -> TimedPrediction {
        try await worker.run { [predictor] checkpoint in
            try Signposts.interval("predict") {
                try source.withRows { try predictor.predictTimed($0, mapSize: mapSize, checkpoint: checkpoint) }
            }
        }
    }

    // The task of the bundle decides what is predicted, so these never throw.

    private func classifications(_ prediction: Prediction) throws -> [Classification] {
        guard case .classifications(let found) = prediction else { throw other(prediction) }
        return found
    }

    private func detections(_ prediction: Prediction) throws -> [Detection] {
        guard case .detections(let found) = prediction else { throw other(prediction) }
        return found
    }

    private func classMap(_ prediction: Prediction) throws -> ClassMap {
        guard case .classMap(let found) = prediction else { throw other(prediction) }
        return found
    }

    private func other(_ prediction: Prediction) -> XFormerError {
        .bundle("the bundle's task is \(bundle.task.rawValue), its result another's")
    }
}
#endif
