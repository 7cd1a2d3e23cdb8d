import Foundation
import XFormerCore

/// A queue of its own that does one thing after the other, in the order of the calls, never on the caller's thread.
final class Worker: Sendable {
    private let queue = DispatchQueue(
        label: "xformer-mobile", qos: .userInitiated, autoreleaseFrequency: .workItem)

    /// Throws `CancellationError` once the caller's task is cancelled.
    typealias Checkpoint = @Sendable () throws -> Void

    /// Runs `work` on the queue.
    ///
    /// A call that is cancelled while it waits does nothing. Work that has begun is given a checkpoint to call between
    /// its phases; the caller always waits until it has ended, and may free what it uses afterwards.
    func run<Value: Sendable>(_ work: @escaping @Sendable (Checkpoint) throws -> Value) async throws -> Value {
        let flag = Flag()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                queue.async {
                    continuation.resume(
                        with: Result {
                            try flag.check()
                            return try work { try flag.check() }
                        })
                }
            }
        } onCancel: {
            flag.raise()
        }
    }

    /// Runs `last` on the queue when what was called before is done; not to be cancelled.
    func finish(_ last: @escaping @Sendable () -> Void) async {
        await withCheckedContinuation { continuation in
            queue.async {
                last()
                continuation.resume()
            }
        }
    }

    /// Whether a task is cancelled, for code that does not run in it.
    private final class Flag: @unchecked Sendable {
        private let lock = NSLock()
        private var isRaised = false

        func raise() {
            lock.withLock { isRaised = true }
        }

        func check() throws {
            if lock.withLock({ isRaised }) { throw CancellationError() }
        }
    }
}
