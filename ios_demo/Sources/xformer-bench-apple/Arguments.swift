import XFormerCore
import XFormerCoreML

/// What the command is asked to do.
struct Arguments: Equatable {
    /// The bundle's directory.
    var bundle: String

    /// What Core ML may choose from.
    var computeUnits = ComputeUnits.all

    /// Timed runs of the model.
    var runs = 300

    /// Where the document of the measurement goes; "-" is standard output.
    var json: String?

    /// Whether the golden inputs are run first, and compared with the reference model's outputs.
    var golden = false

    static let usage = """
        usage: xformer-bench-apple BUNDLE [--compute-units UNITS] [--runs N] [--json FILE] [--golden]

        Measures how long a bundle's Core ML model takes on this machine, each phase apart.

          --compute-units UNITS  what Core ML may choose from: all, cpu-only, cpu-and-gpu, cpu-and-neural-engine (all)
          --runs N               timed runs of the model, 1 to 1000000 (300)
          --json FILE            write the raw samples, for xformer-bench show; - is standard output
          --golden               compare the bundle's golden inputs with the reference model first
          --help                 show this

        examples:
          xformer-bench-apple my-bundle
          xformer-bench-apple my-bundle --compute-units cpu-and-neural-engine --golden --json mac.json

        Exit status: 0 success; 1 the model can't be run, or does not return what it should; 2 wrong usage.
        """

    /// Reads the words behind the command's name; nil where help is asked for.
    ///
    /// - Throws: ``XFormerCore/XFormerError/usage(_:)`` for an unknown option, or a value that can't be right.
    static func read(_ words: [String]) throws -> Arguments? {
        var made = Arguments(bundle: "")
        var bundles: [String] = []
        var rest = words[...]
        while let word = rest.popFirst() {
            func value() throws -> String {
                guard let value = rest.popFirst() else { throw XFormerError.usage("\(word) needs a value") }
                return value
            }
            switch word {
            case "--help", "-h": return nil
            case "--golden": made.golden = true
            case "--json": made.json = try value()
            case "--runs": made.runs = try runs(value())
            case "--compute-units": made.computeUnits = try units(value())
            case _ where word.hasPrefix("-") && word != "-":
                throw XFormerError.usage(
                    "unknown option '\(word)'; valid: --compute-units, --runs, --json, --golden, --help")
            default: bundles.append(word)
            }
        }
        guard bundles.count == 1, !bundles[0].isEmpty else {
            throw XFormerError.usage("got \(bundles.count) bundles; give one, the directory with the manifest.json")
        }
        made.bundle = bundles[0]
        return made
    }

    private static func runs(_ text: String) throws -> Int {
        guard let number = Int(text), (1...1_000_000).contains(number) else {
            throw XFormerError.usage("--runs is '\(text)'; valid: 1 to 1000000")
        }
        return number
    }

    private static func units(_ text: String) throws -> ComputeUnits {
        guard let units = ComputeUnits(rawValue: text) else {
            let valid = ComputeUnits.allCases.map(\.rawValue).joined(separator: ", ")
            throw XFormerError.usage("--compute-units is '\(text)'; valid: \(valid)")
        }
        return units
    }
}
