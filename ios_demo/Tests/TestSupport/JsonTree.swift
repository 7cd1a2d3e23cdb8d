import Foundation
import XFormerCore

extension Json {
    /// A JSON file, such as a schema.
    package static func file(_ url: URL) throws -> Json { try parse(Data(contentsOf: url)) }

    /// The text that ``Json/parse(_:)`` reads; fields in the order of their names.
    package var written: String {
        switch self {
        case .null: "null"
        case .bool(let bool): "\(bool)"
        case .number(let literal): literal
        case .text(let text): Self.quoted(text)
        case .list(let items): "[" + items.map(\.written).joined(separator: ",") + "]"
        case .object(let fields):
            "{"
                + fields.sorted { $0.key < $1.key }.map { "\(Self.quoted($0.key)):\($0.value.written)" }
                .joined(separator: ",") + "}"
        }
    }

    private static func quoted(_ text: String) -> String {
        let letters = text.unicodeScalars.map { letter in
            switch letter {
            case "\"": "\\\""
            case "\\": "\\\\"
            case ..<" ":
                "\\u" + String(repeating: "0", count: letter.value < 16 ? 3 : 2) + String(letter.value, radix: 16)
            default: String(letter)
            }
        }
        return "\"" + letters.joined() + "\""
    }

    /// The value at a path such as "model/labels/0"; nil where there is none.
    package func at(_ path: String) -> Json? {
        path.split(separator: "/").reduce(Optional(self)) { value, name in
            switch value {
            case .object(let fields): fields[String(name)]
            case .list(let items): Int(name).flatMap { items.indices.contains($0) ? items[$0] : nil }
            default: nil
            }
        }
    }

    /// The tree with another value at a path; nil takes away what is there.
    package func with(_ path: String, _ value: Json?) -> Json {
        let parts = path.split(separator: "/", maxSplits: 1).map(String.init)
        func changed(_ child: Json?) -> Json? {
            parts.count == 1 ? value : (child ?? .object([:])).with(parts[1], value)
        }
        switch self {
        case .object(var fields):
            fields[parts[0]] = changed(fields[parts[0]])
            return .object(fields)
        case .list(let items):
            return .list(items.enumerated().compactMap { String($0) == parts[0] ? changed($1) : $1 })
        default:
            return self
        }
    }

    /// Every path in the tree.
    package var paths: [String] {
        let children: [(String, Json)] =
            switch self {
            case .object(let fields): fields.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
            case .list(let items): items.enumerated().map { (String($0), $1) }
            default: []
            }
        return children.flatMap { name, child in [name] + child.paths.map { "\(name)/\($0)" } }
    }

    /// The items of a list; none of anything else.
    package var items: [Json] {
        guard case .list(let items) = self else { return [] }
        return items
    }

    /// The names of an object's fields in their order; none of anything else.
    package var names: [String] {
        guard case .object(let fields) = self else { return [] }
        return fields.keys.sorted()
    }

    /// A text; nil of anything else.
    package var text: String? {
        guard case .text(let text) = self else { return nil }
        return text
    }
}

extension Seeded {
    /// A text's bytes with some of them exchanged, taken away, put twice or cut off.
    package mutating func mutated(_ content: Data) -> Data {
        var bytes = [UInt8](content)
        for _ in 0..<Int.random(in: 1...3, using: &self) where !bytes.isEmpty {
            let place = Int.random(in: 0..<bytes.count, using: &self)
            switch Int.random(in: 0..<6, using: &self) {
            case 0: bytes[place] = UInt8.random(in: .min ... .max, using: &self)
            case 1: bytes.remove(at: place)
            case 2: bytes.insert(bytes[place], at: place)
            case 3: bytes.insert(Array("{}[],:\"\\0123456789eE+-.".utf8).randomElement(using: &self) ?? 0, at: place)
            case 4: bytes.swapAt(place, Int.random(in: 0..<bytes.count, using: &self))
            default: bytes.removeLast(min(bytes.count, Int.random(in: 1...8, using: &self)))
            }
        }
        return Data(bytes)
    }
}
