/// A prediction, and how long each step of it took.
public struct TimedPrediction: Sendable, Equatable {
    /// What the model found.
    public let prediction: Prediction

    /// From the picture to the model's input.
    public let preprocessNs: Int

    /// The model.
    public let inferenceNs: Int

    /// From the model's outputs to the result.
    public let postprocessNs: Int
}

/// From pictures to typed results: a bundle's rules around an opened engine.
///
/// Blocks the caller's thread. May be used from any number of threads: pictures are fitted and results made side by
/// side, the engine runs one at a time. Closing waits for the run, and closes the engine; a later call is a
/// ``XFormerError/usage(_:)``.
public final class Predictor: Sendable {
    /// The model.
    public let bundle: ModelBundle

    /// The engine, held to the manifest.
    public let engine: CheckedEngine

    private let postprocess: Postprocess

    /// Puts the bundle's rules around `engine`, which has opened one of its artifacts.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when the bundle's postprocessing can't be right.
    public init(bundle: ModelBundle, engine: any Engine) throws {
        self.bundle = bundle
        self.engine = engine.checked(by: bundle)
        postprocess = try bundle.postprocess()
    }

    /// What the model finds in an upright picture.
    ///
    /// - Throws: ``XFormerError/image(_:)`` when the picture can't be used; ``XFormerError/bundle(_:)`` when the
    ///   outputs are not those declared, or not finite; ``XFormerError/engine(_:)`` when the engine failed;
    ///   ``XFormerError/usage(_:)`` when it is closed; `CancellationError` between two steps of a task that is
    ///   cancelled.
    public func predict(_ image: some RowSource) throws -> Prediction { try predictTimed(image).prediction }

    /// Like ``predict(_:)``, with the times.
    ///
    /// `mapSize` is the size of a class map where it shall not be the picture's, such as a preview's; other tasks
    /// ignore it. `checkpoint` is called before each step; what it throws ends the prediction.
    public func predictTimed(
        _ image: some RowSource, mapSize: PixelSize? = nil,
        checkpoint: () throws -> Void = { try Task.checkCancellation() }
    ) throws -> TimedPrediction {
        try checkpoint()
        let (fitted, preprocessNs) = try timed {
            try Preprocess.preprocess(image, target: bundle.imageSize, rule: bundle.resizeRule)
        }
        try checkpoint()
        let (outputs, inferenceNs) = try timed { try engine.run(fitted.image) }
        try checkpoint()
        let (prediction, postprocessNs) = try timed {
            if let mapSize, bundle.task == .segment {
                return Prediction.classMap(try postprocess.segment(outputs, at: mapSize))
            }
            return try postprocess(outputs, fit: fitted.fit)
        }
        return TimedPrediction(
            prediction: prediction, preprocessNs: preprocessNs, inferenceNs: inferenceNs,
            postprocessNs: postprocessNs)
    }

    private func timed<Result>(_ work: () throws -> Result) rethrows -> (Result, Int) {
        let since = SystemClock().nanoseconds()
        let result = try work()
        return (result, SystemClock().nanoseconds() - since)
    }

    /// Closes the engine, once no run is under way.
    public func close() { engine.close() }
}
