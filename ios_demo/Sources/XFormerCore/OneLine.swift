import Foundation

/// What a library says of its failure, as one line of a reasonable length.
package func oneLine(_ text: String) -> String {
    String(text.split(whereSeparator: \.isWhitespace).joined(separator: " ").prefix(200))
}

/// What an error says, as one line of a reasonable length.
package func oneLine(_ error: any Error) -> String { oneLine(error.localizedDescription) }
