import Foundation

/// Observes notifications as long as it is held.
final class NotificationTokens {
    private var tokens: [any NSObjectProtocol] = []

    /// Calls `block` for each notification of that name from `object`, or from any where that is nil; on the main
    /// thread with `onMain`, else on the thread that tells.
    func observe(
        _ name: Notification.Name, object: AnyObject? = nil, onMain: Bool = false,
        block: @escaping @Sendable (Notification) -> Void
    ) {
        tokens.append(
            NotificationCenter.default.addObserver(
                forName: name, object: object, queue: onMain ? .main : nil, using: block))
    }

    deinit {
        for token in tokens { NotificationCenter.default.removeObserver(token) }
    }
}
