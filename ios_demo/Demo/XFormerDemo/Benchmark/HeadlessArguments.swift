import XFormerCore
import XFormerCoreML

/// What a headless benchmark is asked to do, by the arguments that the app is launched with.
struct HeadlessArguments: Equatable, Sendable {
    /// The argument that asks for a headless benchmark.
    static let flag = "--benchmark"

    /// The argument that lets the app end when the benchmark has ended, with 0 where it passed, else with 1.
    static let endFlag = "--end"

    /// A bundle's name; nil: the first one by name.
    var bundle: String?

    /// In the order in which they are measured.
    var units: [ComputeUnits] = [.all]

    /// Timed runs of each.
    var runs = 200

    /// The name of the results' file, in the app's documents.
    var output = "results.json"

    private static let names = ["--bundle", "--units", "--runs", "--output"]
    private static let runRange = 10...100_000

    /// Whether a headless benchmark is asked for.
    static func isAsked(by arguments: [String]) -> Bool { arguments.contains(flag) }

    /// Reads what follows the program's name: `--benchmark`, `--end`, and `--name value` or `--name=value`.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` for an unknown name, or a value that can't be right.
    init(_ arguments: [String]) throws {
        var rest = arguments.filter { $0 != Self.flag && $0 != Self.endFlag }[...]
        while let argument = rest.popFirst() {
            let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let name = parts[0]
            guard Self.names.contains(name) else {
                throw XFormerError.usage(
                    "unknown argument '\(Self.shown(name))'; valid: \(Self.names.joined(separator: ", "))")
            }
            guard let value = parts.count == 2 ? parts[1] : rest.popFirst() else {
                throw XFormerError.usage("\(name) has no value; write \(name) value")
            }
            try set(name, to: value)
        }
    }

    /// The name of the results' file, also where other arguments can't be right; the usual one where it can't be.
    static func output(of arguments: [String]) -> String {
        let usual = "results.json"
        guard let place = arguments.lastIndex(where: { $0 == "--output" || $0.hasPrefix("--output=") }) else {
            return usual
        }
        let argument = arguments[place]
        let value = argument == "--output" ? arguments.dropFirst(place + 1).first : String(argument.dropFirst(9))
        return value.flatMap { ResultName.isValid($0) ? $0 : nil } ?? usual
    }

    private mutating func set(_ name: String, to value: String) throws {
        switch name {
        case "--bundle":
            guard BundleName.isValid(value) else {
                throw XFormerError.usage(
                    "--bundle '\(Self.shown(value))' is no bundle's name; valid: letters, digits, . _ and -")
            }
            bundle = value
        case "--units":
            units = []
            for part in value.split(whereSeparator: { ",+".contains($0) }) {
                guard let found = ComputeUnits(rawValue: String(part)) else {
                    let valid = ComputeUnits.allCases.map(\.rawValue).joined(separator: ", ")
                    throw XFormerError.usage("--units has '\(Self.shown(String(part)))'; valid: \(valid)")
                }
                if !units.contains(found) { units.append(found) }
            }
            if units.isEmpty { throw XFormerError.usage("--units names none; write --units all") }
        case "--runs":
            guard let number = Int(value), Self.runRange.contains(number) else {
                throw XFormerError.usage(
                    "--runs is '\(Self.shown(value))'; valid: \(Self.runRange.lowerBound) to "
                        + "\(Self.runRange.upperBound)")
            }
            runs = number
        default:
            guard ResultName.isValid(value) else {
                throw XFormerError.usage(
                    "--output '\(Self.shown(value))' is not valid; valid is the name of a .json file, without a "
                        + "folder, of letters, digits, . _ and -")
            }
            output = value
        }
    }

    private static func shown(_ text: String) -> String { String(text.prefix(60)) }
}
