/// Why a document is not what it should be; the message goes on after the document's name.
struct ManifestProblem: Error, Equatable {
    let message: String
}

/// A value of a document and where it stands in it, such as "artifacts/0/file". Reading it as something that it is not
/// throws a ``ManifestProblem`` that says so.
struct JsonField {
    let value: Json
    let place: String

    /// No number in a document is larger; it fits a float.
    static let largestNumber = 1e30

    private static let plainLetters = Set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_. -".utf8)

    /// The top level of a document.
    init(document: Json) {
        value = document
        place = ""
    }

    private init(_ value: Json, _ place: String, _ name: String) {
        let isPlain = (1...60).contains(name.utf8.count) && name.utf8.allSatisfy(Self.plainLetters.contains)
        self.value = value
        self.place = (place.isEmpty ? "" : place + "/") + (isPlain ? name : quote(name))
    }

    // MARK: - What is inside

    /// A field that must be there.
    subscript(name: String) -> JsonField {
        get throws {
            guard let field = try ifPresent(name) else { throw refusal("\(quote(name)) is missing") }
            return field
        }
    }

    /// A field that need not be there; but null is a value, too.
    func ifPresent(_ name: String) throws -> JsonField? {
        try fields()[name].map { JsonField($0, place, name) }
    }

    private func fields() throws -> [String: Json] {
        guard case .object(let fields) = value else { throw wrong("an object") }
        return fields
    }

    /// An object whose names are free.
    func map<Value>(_ read: (JsonField) throws -> Value) throws -> [String: Value] {
        var values: [String: Value] = [:]
        for (name, value) in try fields().sorted(by: { $0.key < $1.key }) {
            values[name] = try read(JsonField(value, place, name))
        }
        return values
    }

    /// A list of so many values.
    func list<Value>(_ valid: ClosedRange<Int>, _ read: (JsonField) throws -> Value) throws -> [Value] {
        guard case .list(let items) = value else { throw wrong("a list") }
        guard valid.contains(items.count) else {
            throw refusal("got a list of \(items.count); valid: \(Self.words(valid))")
        }
        return try items.enumerated().map { try read(JsonField($1, place, String($0))) }
    }

    /// A list.
    func list<Value>(_ read: (JsonField) throws -> Value) throws -> [Value] { try list(0...Int.max, read) }

    /// A list of three, two, ... values.
    func list<Value>(of count: Int, _ read: (JsonField) throws -> Value) throws -> [Value] {
        try list(count...count, read)
    }

    // MARK: - What it is

    /// A text of which `isValid` holds; `valid` says so in words.
    func text(_ valid: String = "a text", where isValid: (String) -> Bool = { _ in true }) throws -> String {
        guard case .text(let text) = value else { throw wrong("a text") }
        guard isValid(text) else { throw wrong(valid) }
        return text
    }

    /// A text of one letter or more.
    func name() throws -> String { try text("one letter or more") { !$0.isEmpty } }

    /// One of these texts.
    func text(oneOf valid: [String]) throws -> String {
        guard case .text(let text) = value, valid.contains(text) else { throw wrong(valid.joined(separator: " or ")) }
        return text
    }

    /// One of an enumeration's cases.
    func choice<Choice: RawRepresentable & CaseIterable>() throws -> Choice where Choice.RawValue == String {
        let valid = Choice.allCases.map(\.rawValue)
        guard let choice = Choice(rawValue: try text(oneOf: valid)) else {
            throw wrong(valid.joined(separator: " or "))
        }
        return choice
    }

    /// A text, or a number as it is written; nil for anything else.
    var literal: String? {
        switch value {
        case .text(let literal), .number(let literal): literal
        default: nil
        }
    }

    /// True or false.
    func bool() throws -> Bool {
        guard case .bool(let bool) = value else { throw wrong("true or false") }
        return bool
    }

    /// True.
    func isTrue() throws {
        guard try bool() else { throw wrong("true") }
    }

    /// An integer of which `isValid` holds, without a point or a power; `valid` says so in words.
    func int(_ valid: String = "", where isValid: (Int) -> Bool = { _ in true }) throws -> Int {
        guard case .number(let literal) = value, let number = Int(literal) else { throw wrong("an integer of 64 bits") }
        guard isValid(number) else { throw wrong(valid) }
        return number
    }

    /// An integer of a range.
    func int(_ valid: ClosedRange<Int>) throws -> Int {
        try int(Self.words(valid), where: valid.contains)
    }

    /// An integer from a number on.
    func int(from least: Int) throws -> Int { try int(least...Int.max) }

    /// A number that fits a float.
    func double(from least: Double = -largestNumber, to most: Double = largestNumber) throws -> Double {
        guard case .number(let literal) = value, let number = Double(literal) else { throw wrong("a number") }
        guard number >= least, number <= most else {
            throw wrong("\(least == -Self.largestNumber ? "" : "from \(least) ")to \(most)")
        }
        return number
    }

    /// A number above zero that fits a float.
    func positive() throws -> Double {
        let number = try double()
        guard number > 0 else { throw wrong("above 0") }
        return number
    }

    /// A number from 0 to 1.
    func share() throws -> Double { try double(from: 0, to: 1) }

    /// A number that fits a float, or nil for null.
    func doubleOrNull() throws -> Double? { value == .null ? nil : try double() }

    // MARK: - What it is not

    private func wrong(_ valid: String) -> ManifestProblem {
        let got =
            switch value {
            case .object: "an object"
            case .list: "a list"
            case .text(let text): quote(text)
            case .number(let literal): String(literal.prefix(60))
            case .bool(let bool): "\(bool)"
            case .null: "null"
            }
        return refusal("got \(got); valid: \(valid)")
    }

    private func refusal(_ problem: String) -> ManifestProblem {
        ManifestProblem(message: "is not a manifest: at \(place.isEmpty ? "its top level" : place): \(problem)")
    }

    private static func words(_ valid: ClosedRange<Int>) -> String {
        if valid.upperBound == .max { return "from \(valid.lowerBound) on" }
        return valid.lowerBound == valid.upperBound
            ? "\(valid.lowerBound)" : "\(valid.lowerBound) to \(valid.upperBound)"
    }
}
