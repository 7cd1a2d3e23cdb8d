import Foundation

/// An engine that is held to the manifest, and may be used from any thread: one run at a time, others wait; closing
/// waits for the run.
public final class CheckedEngine: Engine, @unchecked Sendable {
    private let inner: any Engine
    private let imageSize: ImageSize
    private let outputShapes: [String: [Int]]
    private let lock = NSLock()
    private var isClosed = false  // only with the lock

    /// Holds `engine` to the input's size and the outputs' shapes by name.
    public init(_ engine: any Engine, imageSize: ImageSize, outputShapes: [String: [Int]]) {
        inner = engine
        self.imageSize = imageSize
        self.outputShapes = outputShapes
    }

    /// What the engine is and how it was opened.
    public var report: EngineReport { inner.report }

    /// Runs the model.
    ///
    /// - Throws: ``XFormerError/image(_:)`` for a picture of another size; ``XFormerError/bundle(_:)`` when the outputs
    ///   are not those that the manifest declares; ``XFormerError/engine(_:)`` when the engine failed;
    ///   ``XFormerError/usage(_:)`` when it is closed.
    public func run(_ image: RgbImage) throws -> Outputs {
        guard image.width == imageSize.width, image.height == imageSize.height else {
            throw XFormerError.image("got a picture of \(image.height)x\(image.width); the model takes \(imageSize)")
        }
        let outputs = try lock.withLock {
            guard !isClosed else { throw XFormerError.usage("the engine is closed; open the bundle again") }
            do {
                return try inner.run(image)
            } catch let error as XFormerError {
                throw error
            } catch let error as CancellationError {
                throw error
            } catch {
                throw XFormerError.engine("\(report.engine) failed: \(oneLine(error))")
            }
        }
        try checkDeclared(outputs)
        return outputs
    }

    private func checkDeclared(_ outputs: Outputs) throws {
        let found = outputs.mapValues(\.shape)
        guard found == outputShapes else {
            throw XFormerError.bundle(
                "\(report.engine) returned \(inWords(found)), the manifest declares \(inWords(outputShapes))")
        }
    }

    private func inWords(_ shapes: [String: [Int]]) -> String {
        if shapes.isEmpty { return "nothing" }
        return shapes.sorted { $0.key < $1.key }.map { "\($0.key) \(describe($0.value))" }.joined(separator: ", ")
    }

    /// Releases the model, once no run is under way. Closing again changes nothing.
    public func close() {
        lock.withLock {
            if !isClosed { inner.close() }
            isClosed = true
        }
    }
}

extension Engine {
    /// This engine, held to the bundle's manifest.
    func checked(by bundle: ModelBundle) -> CheckedEngine {
        self as? CheckedEngine
            ?? CheckedEngine(self, imageSize: bundle.imageSize, outputShapes: bundle.outputShapes)
    }
}
