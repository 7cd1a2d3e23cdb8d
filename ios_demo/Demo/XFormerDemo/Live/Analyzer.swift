/// Between the camera and the model: analyzes one frame at a time, always the newest; a frame that a newer one replaces
/// is dropped.
final class Analyzer<Frame: Sendable, Output: Sendable>: Sendable {
    private let continuation: AsyncStream<Frame>.Continuation
    private let task: Task<Void, Never>

    /// An analyzer that gives each result or failure of `analyze` to `deliver`, in order.
    init(
        analyze: @escaping @Sendable (Frame) async throws -> Output,
        deliver: @escaping @MainActor (Result<Output, any Error>) -> Void
    ) {
        let (frames, continuation) = AsyncStream.makeStream(of: Frame.self, bufferingPolicy: .bufferingNewest(1))
        self.continuation = continuation
        task = Task {
            for await frame in frames {
                let result: Result<Output, any Error>
                do {
                    result = .success(try await analyze(frame))
                } catch {
                    result = .failure(error)
                }
                await MainActor.run {
                    if !Task.isCancelled { deliver(result) }
                }
            }
        }
    }

    /// Takes a frame; may be called from any thread.
    func offer(_ frame: Frame) {
        continuation.yield(frame)
    }

    /// From now on nothing is delivered; a running analysis ends by itself.
    func close() {
        task.cancel()
        continuation.finish()
    }

    deinit {
        task.cancel()
        continuation.finish()
    }
}
