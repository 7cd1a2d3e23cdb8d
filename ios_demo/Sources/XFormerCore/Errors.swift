import Foundation

/// Every error that this library throws on purpose; `CancellationError` is passed on as it is.
///
/// The message is one line: what was got, what is valid, what to do. It may be shown to users.
public enum XFormerError: Error, Sendable, Equatable {
    /// A bundle, manifest or artifact that is missing, broken, foreign or hostile; an artifact that an engine refuses;
    /// outputs that are not those declared, or not finite.
    case bundle(String)

    /// A picture that can't be used.
    case image(String)

    /// An engine or compute unit that is not there, or fails.
    case engine(String)

    /// A call that can't be right: a value out of range, a format that the bundle lacks, a model that is closed.
    case usage(String)

    /// A measurement that can't be used.
    case benchmark(String)

    /// What happened, in one line.
    public var message: String {
        switch self {
        case .bundle(let message), .image(let message), .engine(let message), .usage(let message),
            .benchmark(let message):
            message
        }
    }
}

extension XFormerError: LocalizedError, CustomStringConvertible {
    /// The message.
    public var errorDescription: String? { message }

    /// The message.
    public var description: String { message }
}
