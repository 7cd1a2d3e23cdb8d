import Foundation

/// Why a text is not JSON, or not taken.
package struct JsonProblem: Error, Equatable {
    package let message: String
}

/// A value of a JSON document. A number is its literal: what it is read as is for the reader to say.
package enum Json: Sendable, Equatable {
    case null
    case bool(Bool)
    case number(String)
    case text(String)
    case list([Json])
    case object([String: Json])

    /// Reads JSON (RFC 8259) that nobody vouches for, so that it has one reading only.
    ///
    /// Foundation's readers differ between systems in what they make of a name that stands twice, of 64.0 as an
    /// integer, of 1e999 and of deep nesting; some crash.
    ///
    /// - Throws: ``JsonProblem`` when it is not JSON in UTF-8, or nested too deeply, or has a name twice in one object,
    ///   or too many values.
    package static func parse(_ content: Data) throws -> Json {
        // What can't be decoded is replaced, so the bytes come back otherwise.
        guard Data(String(decoding: content, as: UTF8.self).utf8) == content else {
            throw JsonProblem(message: "it is no text in UTF-8")
        }
        var parser = JsonParser(bytes: [UInt8](content))
        return try parser.document()
    }
}

private struct JsonParser {
    /// A manifest is nested 8 deep.
    private static let maxDepth = 64

    /// With as many labels and colors as there may be, a manifest has 330,000.
    private static let maxValues = 1 << 19

    /// Some readers take time for a number that grows with the square of its digits.
    private static let maxNumberLength = 1000

    private static let spaces = Set(" \t\r\n".utf8)
    private static let marks = Set(",:[]{}\"".utf8).union(spaces)

    let bytes: [UInt8]
    private var at = 0
    private var values = 0

    init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    mutating func document() throws -> Json {
        let value = try value(depth: 0)
        skipSpaces()
        guard at == bytes.count else { throw unexpected("the end") }
        return value
    }

    private mutating func value(depth: Int) throws -> Json {
        values += 1
        guard values <= Self.maxValues else { throw JsonProblem(message: "it has more than \(Self.maxValues) values") }
        skipSpaces()
        switch peek {
        case UInt8(ascii: "{"): return .object(try object(depth: depth + 1))
        case UInt8(ascii: "["): return .list(try list(depth: depth + 1))
        case UInt8(ascii: "\""): return .text(try text())
        default: return try word()
        }
    }

    private mutating func object(depth: Int) throws -> [String: Json] {
        try checkDepth(depth)
        var fields: [String: Json] = [:]
        try items(until: "}") { parser in
            guard parser.peek == UInt8(ascii: "\"") else { throw parser.unexpected("a name in quotes") }
            let name = try parser.text()
            guard parser.take(":") else { throw parser.unexpected("a colon") }
            let value = try parser.value(depth: depth)
            guard fields.updateValue(value, forKey: name) == nil else {
                throw JsonProblem(message: "a name stands twice in one object")
            }
        }
        return fields
    }

    private mutating func list(depth: Int) throws -> [Json] {
        try checkDepth(depth)
        var items: [Json] = []
        try self.items(until: "]") { items.append(try $0.value(depth: depth)) }
        return items
    }

    private func checkDepth(_ depth: Int) throws {
        if depth > Self.maxDepth { throw JsonProblem(message: "it is nested more than \(Self.maxDepth) deep") }
    }

    /// What stands between the bracket that is next and its partner, with commas between.
    private mutating func items(until end: Unicode.Scalar, _ item: (inout JsonParser) throws -> Void) throws {
        at += 1
        if take(end) { return }
        repeat {
            skipSpaces()
            try item(&self)
        } while take(",")
        guard take(end) else { throw unexpected("a comma or \(end)") }
    }

    private mutating func text() throws -> String {
        at += 1
        var letters: [UInt8] = []
        while let byte = peek {
            at += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: letters, as: UTF8.self)
            case UInt8(ascii: "\\"): letters += String(try escaped()).utf8
            case ..<0x20: throw JsonProblem(message: "a string has a control character that is not escaped")
            default: letters.append(byte)
            }
        }
        throw unexpected("a quotation mark")
    }

    /// The letter that an escape sequence stands for, after the backslash.
    private mutating func escaped() throws -> Unicode.Scalar {
        guard let byte = peek else { throw unexpected("the rest of an escape sequence") }
        at += 1
        switch Unicode.Scalar(byte) {
        case "\"", "\\", "/": return Unicode.Scalar(byte)
        case "b": return "\u{8}"
        case "f": return "\u{c}"
        case "n": return "\n"
        case "r": return "\r"
        case "t": return "\t"
        case "u": break
        default: throw unexpected("an escape sequence of JSON")
        }
        let first = try hex()
        if let letter = Unicode.Scalar(first) { return letter }
        // A letter beyond 16 bits is a pair of surrogates.
        guard first < 0xdc00, bytes[at...].starts(with: "\\u".utf8) else { throw unexpected("the rest of a letter") }
        at += 2
        let second = try hex()
        guard (0xdc00...0xdfff).contains(second),
            let letter = Unicode.Scalar(0x10000 + (first - 0xd800) << 10 + (second - 0xdc00))
        else { throw unexpected("the rest of a letter") }
        return letter
    }

    private mutating func hex() throws -> UInt32 {
        let digits = bytes[at...].prefix(4)
        guard digits.count == 4, digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
            let number = UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw unexpected("four hexadecimal digits") }
        at += 4
        return number
    }

    /// A number, true, false or null.
    private mutating func word() throws -> Json {
        let letters = bytes[at...].prefix { !Self.marks.contains($0) }
        guard !letters.isEmpty else { throw unexpected("a value") }
        at = letters.endIndex
        let word = String(decoding: letters, as: UTF8.self)
        switch word {
        case "null": return .null
        case "true": return .bool(true)
        case "false": return .bool(false)
        default: break
        }
        guard isJsonNumber(letters) else { throw JsonProblem(message: "got \(quote(word)), which is no value") }
        guard letters.count <= Self.maxNumberLength else {
            throw JsonProblem(message: "a number has more than \(Self.maxNumberLength) digits")
        }
        return .number(word)
    }

    private var peek: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skipSpaces() {
        while let byte = peek, Self.spaces.contains(byte) { at += 1 }
    }

    /// Whether that mark is next, behind spaces; goes on behind it.
    private mutating func take(_ mark: Unicode.Scalar) -> Bool {
        skipSpaces()
        guard peek == UInt8(ascii: mark) else { return false }
        at += 1
        return true
    }

    private func unexpected(_ expected: String) -> JsonProblem {
        JsonProblem(message: "expected \(expected) at offset \(at)")
    }
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`
private func isJsonNumber(_ letters: ArraySlice<UInt8>) -> Bool {
    var rest = letters
    func take(_ valid: String) -> Bool {
        guard let next = rest.first, valid.utf8.contains(next) else { return false }
        rest.removeFirst()
        return true
    }
    func takeDigits() -> Int {
        let digits = rest.prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        rest = rest[digits.endIndex...]
        return digits.count
    }
    _ = take("-")
    let hasLeadingZero = rest.first == UInt8(ascii: "0")
    let digits = takeDigits()
    guard digits > 0, digits == 1 || !hasLeadingZero else { return false }
    if take("."), takeDigits() == 0 { return false }
    if take("eE") {
        _ = take("+-")
        if takeDigits() == 0 { return false }
    }
    return rest.isEmpty
}

/// Text of a stranger for a message: one short line, in quotes.
func quote(_ text: String) -> String {
    let most = 60
    var line = String.UnicodeScalarView()
    for letter in text.unicodeScalars.prefix(most) {
        line.append(unprintable.contains(letter.properties.generalCategory) ? "\u{fffd}" : letter)
    }
    return "'\(String(line))\(text.unicodeScalars.count > most ? "..." : "")'"
}

/// Letters of these kinds have no place in a line, or do something to it. The space is one of them, but for " ".
let unprintable: Set<Unicode.GeneralCategory> = [
    .control, .format, .surrogate, .privateUse, .lineSeparator, .paragraphSeparator,
]
