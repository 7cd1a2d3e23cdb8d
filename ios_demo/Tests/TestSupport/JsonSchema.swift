import Foundation
import XFormerCore

/// The part of JSON Schema 2020-12 that the project's schemas use; what it does not know fails. As in the Python code,
/// 5.0 is no integer, no number is above 1e30, and a newline at the end is part of a text.
package struct JsonSchema {
    private let root: Json

    /// Words that say nothing of a document.
    private static let remarks: Set = ["$schema", "$id", "$defs", "title", "description", "examples", "default"]

    /// A schema of xformer_mobile/schemas, such as "manifest".
    package init(_ name: String) throws {
        let folder = Golden.root.deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("xformer_mobile/schemas")
        root = try .file(folder.appendingPathComponent("\(name).schema.json"))
    }

    /// What a document has that it may not have, and where; empty where it follows the schema.
    package func problems(of document: Json) throws -> [String] {
        try problems(document, root, "")
    }

    private func problems(_ value: Json, _ schema: Json, _ place: String) throws -> [String] {
        guard case .object(let words) = schema else {
            guard case .bool(let isTaken) = schema else { throw SchemaFailure(description: "no schema at \(place)") }
            return isTaken ? [] : ["\(place): nothing is valid"]
        }
        return try words.sorted { $0.key < $1.key }.flatMap { word, rule in
            try problems(value, word, rule, schema, place)
        }
    }

    private func problems(
        _ value: Json, _ word: String, _ rule: Json, _ schema: Json, _ place: String
    ) throws -> [String] {
        func check(_ holds: Bool) -> [String] { holds ? [] : ["\(place): \(word) \(rule.written)"] }
        switch (word, value) {
        case ("$ref", _):
            let path = (rule.text ?? "").replacingOccurrences(of: "#/", with: "")
            guard let target = root.at(path) else { throw SchemaFailure(description: "no \(path) in the schema") }
            return try problems(value, target, place)
        case ("type", _):
            let types = rule.text.map { [$0] } ?? rule.items.compactMap(\.text)
            return check(try types.contains { try isType(value, $0) })
        case ("const", _): return check(value == rule)
        case ("enum", _): return check(rule.items.contains(value))
        case ("allOf", _): return try rule.items.flatMap { try problems(value, $0, place) }
        case ("anyOf", _): return check(try rule.items.contains { try problems(value, $0, place).isEmpty })
        case ("required", .object(let fields)):
            return check(rule.items.compactMap(\.text).allSatisfy { fields[$0] != nil })
        case ("properties", .object(let fields)):
            return try rule.names.flatMap { name in
                guard let field = fields[name], let inner = rule.at(name) else { return [String]() }
                return try problems(field, inner, "\(place)/\(name)")
            }
        case ("additionalProperties", .object(let fields)):
            let known = Set(schema.at("properties")?.names ?? [])
            return try fields.keys.sorted().filter { !known.contains($0) }.flatMap { name in
                try problems(fields[name] ?? .null, rule, "\(place)/\(name)")
            }
        case ("propertyNames", .object(let fields)):
            return try fields.keys.sorted().flatMap { try problems(.text($0), rule, "\(place)/\($0)") }
        case ("minProperties", .object(let fields)): return check(fields.count >= number(rule))
        case ("prefixItems", .list(let items)):
            return try zip(items, rule.items).enumerated().flatMap { try problems($1.0, $1.1, "\(place)/\($0)") }
        case ("items", .list(let items)):
            let first = schema.at("prefixItems")?.items.count ?? 0
            return try items.enumerated().dropFirst(first).flatMap { try problems($1, rule, "\(place)/\($0)") }
        case ("minItems", .list(let items)): return check(items.count >= number(rule))
        case ("maxItems", .list(let items)): return check(items.count <= number(rule))
        case ("minLength", .text(let text)): return check(text.unicodeScalars.count >= number(rule))
        case ("maxLength", .text(let text)): return check(text.unicodeScalars.count <= number(rule))
        case ("pattern", .text(let text)): return check(!text.hasSuffix("\n") && matches(text, rule.text ?? ""))
        case ("minimum", .number): return check(double(value) >= double(rule))
        case ("maximum", .number): return check(double(value) <= double(rule))
        case ("exclusiveMinimum", .number): return check(double(value) > double(rule))
        case ("multipleOf", .number):
            return check(double(value).truncatingRemainder(dividingBy: double(rule)) == 0)
        case ("required", _), ("properties", _), ("additionalProperties", _), ("propertyNames", _),
            ("minProperties", _), ("prefixItems", _), ("items", _), ("minItems", _), ("maxItems", _),
            ("minLength", _), ("maxLength", _), ("pattern", _), ("minimum", _), ("maximum", _),
            ("exclusiveMinimum", _), ("multipleOf", _):
            return []  // says nothing of a value of another type
        default:
            guard Self.remarks.contains(word) else {
                throw SchemaFailure(description: "the schema has \(word), which this reader does not know")
            }
            return []
        }
    }

    private func isType(_ value: Json, _ type: String) throws -> Bool {
        switch (type, value) {
        case ("object", .object), ("array", .list), ("string", .text), ("boolean", .bool), ("null", .null): true
        case ("number", .number): abs(double(value)) <= 1e30
        case ("integer", .number(let literal)): !literal.contains { ".eE".contains($0) }
        case ("object", _), ("array", _), ("string", _), ("boolean", _), ("null", _), ("number", _), ("integer", _):
            false
        default: throw SchemaFailure(description: "the schema has the type \(type), which this reader does not know")
        }
    }

    private func matches(_ text: String, _ pattern: String) -> Bool {
        text.range(of: pattern, options: .regularExpression) != nil
    }

    private func double(_ value: Json) -> Double {
        guard case .number(let literal) = value else { return .nan }
        return Double(literal) ?? .nan
    }

    private func number(_ value: Json) -> Int { Int(double(value)) }
}

/// A schema can't be used.
package struct SchemaFailure: Error, CustomStringConvertible {
    package let description: String
}
