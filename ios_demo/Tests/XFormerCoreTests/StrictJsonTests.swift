import TestSupport
import XCTest

@testable import XFormerCore

final class StrictJsonTests: XCTestCase {
    private func parse(_ text: String) throws -> Json { try Json.parse(Data(text.utf8)) }

    private func problem(_ text: String, line: UInt = #line) -> String {
        do {
            let value = try parse(text)
            XCTFail("\(text.prefix(100)) is taken as \(value)", line: line)
        } catch let problem as JsonProblem {
            return problem.message
        } catch {
            XCTFail("\(error)", line: line)
        }
        return ""
    }

    func testJsonIsRead() throws {
        let expected: [(String, Json)] = [
            ("{}", .object([:])), ("[]", .list([])), ("null", .null), ("true", .bool(true)), ("false", .bool(false)),
            ("0", .number("0")), ("-0", .number("-0")), ("12", .number("12")), ("-3.25", .number("-3.25")),
            ("1e3", .number("1e3")), ("1E-3", .number("1E-3")), ("2.5e+10", .number("2.5e+10")),
            ("1e999", .number("1e999")), ("\"\"", .text("")), (" \t\r\n1 \t\r\n", .number("1")),
            ("[[],{},\"x\"]", .list([.list([]), .object([:]), .text("x")])),
            (
                " {\"a\" : [ 1 , 2 ] ,\r\n\t\"b\" : { } } ",
                .object(["a": .list([.number("1"), .number("2")]), "b": .object([:])])
            ),
            (#""\" \\ \/ \b \f \n \r \t \u00e4 \ud83e\udd92""#, .text("\" \\ / \u{8} \u{c} \n \r \t ä 🦒")),
            ("\"ä € 🦒\"", .text("ä € 🦒")), (#""\ufffd""#, .text("\u{fffd}")), ("\"\u{fffd}\"", .text("\u{fffd}")),
        ]
        for (text, value) in expected { XCTAssertEqual(try parse(text), value, text) }
    }

    func testWhatIsWrittenIsReadBack() throws {
        for task in ModelTask.allCases {
            let manifest = try TestBundle.manifest(of: task)
            XCTAssertEqual(try parse(manifest.written), manifest)
        }
    }

    func testWhatIsNotJsonIsRefused() {
        let bad = [
            "", " ", "{", "[1", "[1,]", "[,1]", "{\"a\":1,}", "{a:1}", "{\"a\" 1}", "{\"a\":1:2}", "{1:2}", "[1 2]",
            "[1}", "1 2", "{}\u{0}", "{}{}", "nul", "word", "[true false]", "[tru]", "[True]", "'a'", "\"a", "\"\\x\"",
            "\"\\u12\"", "\"\\u12g4\"", "\"\\u١٢٣٤\"", "\"\\u+123\"", "\"\\", "\u{feff}{}", "// x\n{}", "/* x */{}",
            "[a:1]", "[\"a\":1]", "\"a\"b", "\"a\"\"b\"", "{\"a\":}", "{\"a\"", "{,}", "\"\\ud800\"", "\"\\udc00\"",
            "\"\\ud800\\ud800\"", "\"\\ud800x\"", "1\u{301}",
        ]
        for text in bad {
            let message = problem(text)
            XCTAssertTrue((1...250).contains(message.count) && !message.contains { $0.isNewline }, message)
        }
    }

    func testWhatHasTwoReadingsOrTakesTooMuchIsRefused() {
        for word in [
            "NaN", "-Infinity", "+1", "01", "-01", "1.", ".5", "1e", "1e+", "0x10", "-", "--1", "1f", "1_0", "١",
        ] {
            XCTAssertEqual(problem("[\(word)]"), "got '\(word)', which is no value")
        }
        let most = 1 << 19
        let refused = [
            ("\"a\nb\"", "a string has a control character that is not escaped"),
            (#"{"a":1,"a":1}"#, "a name stands twice in one object"),
            (#"{"a":1,"\u0061":1}"#, "a name stands twice in one object"),
            (#"[{"b":{"a:":1,"a:":":"}}]"#, "a name stands twice in one object"),
            (String(repeating: "[", count: 100_000), "it is nested more than 64 deep"),
            (
                String(repeating: "{\"a\":", count: 65) + "1" + String(repeating: "}", count: 65),
                "it is nested more than 64 deep"
            ),
            (String(repeating: "1", count: 1001), "a number has more than 1000 digits"),
            ("0." + String(repeating: "1", count: 1000), "a number has more than 1000 digits"),
            ("[" + String(repeating: "7,", count: most) + "7]", "it has more than \(most) values"),
            ("{\n\"a\": [1 2]}", "expected a comma or ] at offset 10"),
        ]
        for (text, message) in refused { XCTAssertEqual(problem(text), message) }
    }

    func testBytesThatAreNoTextAreRefused() {
        for bytes: [UInt8] in [
            [0xff, 0xfe, 0xfd], [0x22, 0xc3, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22], [0x22, 0xc0, 0x80, 0x22],
        ] {
            XCTAssertThrowsError(try Json.parse(Data(bytes))) { error in
                XCTAssertEqual(error as? JsonProblem, JsonProblem(message: "it is no text in UTF-8"))
            }
        }
    }

    func testAPartOfLargerDataIsRead() throws {
        let data = Data("xx[1]xx".utf8)
        XCTAssertEqual(try Json.parse(data[2..<5]), .list([.number("1")]))
    }

    /// Foundation reads what this reader takes, and as the same tree. (It takes more: see ``Json/parse(_:)``.)
    func testTextsChangedAtRandomAreReadAsFoundationReadsThem() throws {
        let content = Data(
            #"{"a": [1, -2.5e+3, {"b\u0062": null, "b": "x:\"\\"}], "c": {"d": true, "e": [[], {}]}, "f": "\t"}"#.utf8)
        var taken = 0
        try forSeeds(3000) { random in
            let changed = random.mutated(content)
            guard let found = try? Json.parse(changed) else { return }
            taken += 1
            let expected = try JSONSerialization.jsonObject(with: changed, options: .fragmentsAllowed)
            XCTAssertTrue(same(found, expected), String(decoding: changed, as: UTF8.self))
        }
        XCTAssertGreaterThan(taken, 100, "the test says little")
    }

    private func same(_ found: Json, _ expected: Any) -> Bool {
        switch found {
        case .null: expected is NSNull
        case .bool(let bool): expected as? Bool == bool
        case .number(let literal): (expected as? NSNumber)?.doubleValue == Double(literal)
        case .text(let text): expected as? String == text
        case .list(let items):
            (expected as? [Any]).map { $0.count == items.count && zip(items, $0).allSatisfy(same) } ?? false
        case .object(let fields):
            (expected as? [String: Any]).map { other in
                other.count == fields.count
                    && fields.allSatisfy { name, value in other[name].map { same(value, $0) } ?? false }
            } ?? false
        }
    }
}
