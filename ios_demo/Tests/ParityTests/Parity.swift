import Foundation
import OnnxRuntime
import TestSupport
import XFormerCore

/// A format of a bundle in this package's pipeline, against what Python made of the same pictures.
struct ParityRow: Encodable {
    let bundle: String
    let format: String
    let engine: String

    /// The release of Python's engine.
    let pythonEngine: String

    let pictures: Int

    /// Of how many pictures the input is the same, byte for byte.
    var sameInputs = 0

    /// The largest difference of an output on a picture, as a share of that output's range over all pictures.
    var largestDifference = 0.0

    /// Of how many pictures the result is the same: the classes in order; the boxes; the class of every pixel.
    var sameResults = 0

    /// Of class maps: pixels of another class.
    var otherPixels = 0

    /// How many of those are a tie within the outputs' difference.
    var tiedPixels = 0

    /// What is wrong, one sentence each.
    var misses: [String] = []

    /// Against the reference model's outputs.
    let goldenPictures: Int
    let goldenPassed: Bool
    let goldenRelativeMax: Double
    let goldenSnrDb: Double?
    let goldenAgreement: Double

    init(bundle: String, fixtures: Fixtures, report: EngineReport, golden: ParityResult) {
        self.bundle = bundle
        format = report.format.rawValue
        engine = "\(report.engine) \(report.version)"
        pythonEngine = fixtures.tools["onnxruntime"] ?? ""
        pictures = fixtures.cases.count
        goldenPictures = golden.images
        goldenPassed = golden.passed
        goldenRelativeMax = golden.outputs.map(\.relativeMax).max() ?? .nan
        goldenSnrDb = golden.outputs.map(\.snrDb).min().flatMap { $0.isFinite ? $0 : nil }
        goldenAgreement = golden.agreement.share
        misses = golden.misses
    }
}

enum Parity {
    /// How far an output may be from Python's, as a share of its range.
    static let maxDifference = 1e-4

    private static let maxProbability = 1e-4
    private static let maxCorner: Float = 1e-3

    /// Runs every picture of a bundle's fixtures. `change` may put something between the engine and the comparison.
    static func measure(
        _ name: String, _ format: ArtifactFormat, change: (any Engine) -> any Engine = { $0 }
    ) throws -> ParityRow {
        let fixtures = try Fixtures(name)
        let bundle = fixtures.bundle
        let opened = try OnnxRuntimeEngine(bundle: bundle, format: format, threads: fixtures.threads)
        let predictor = try Predictor(bundle: bundle, engine: change(opened))
        defer { predictor.close() }
        let golden = try GoldenReplay.run(bundle, format: format, engine: predictor.engine, decode: decodePng)
        var row = ParityRow(bundle: name, fixtures: fixtures, report: predictor.engine.report, golden: golden)
        // On ARM, ONNX Runtime computes parts of an int8 file in integers that it computes in floats on x86: both are
        // right, and not the same. What they differ by is then told, and the manifest's tolerance is what must hold.
        let isHeld = bundle.precision != "int8" || fixtures.architecture == architecture
        var spans: [String: Span] = [:]
        for item in fixtures.cases {
            let image = try item.image()
            let fitted = try Preprocess.preprocess(image, target: bundle.imageSize, rule: bundle.resizeRule)
            let isSame = try fitted.image.bytes == item.input()
            if isSame { row.sameInputs += 1 } else { row.misses.append("\(item.name): other input") }
            let found = try predictor.engine.run(fitted.image)
            let expected = try item.outputs(format)
            var furthest: Float = 0
            for (output, reference) in expected {
                let difference = largestDifference(reference, found[output])
                spans[output, default: Span()].add(reference, difference)
                furthest = max(furthest, difference)
            }
            let problem = try compare(
                item.result(format), predictor.predict(image), expected["logits"], furthest, &row)
            if problem == nil && isSame { row.sameResults += 1 }
            if let problem, isHeld { row.misses.append("\(item.name): \(problem)") }
        }
        row.largestDifference = spans.values.map(\.share).max() ?? .nan
        // Written so that NaN is a miss.
        if isHeld && !(row.largestDifference <= maxDifference) {
            row.misses.append("an output differs by \(row.largestDifference) of its range")
        }
        return row
    }

    /// Of this processor.
    private static var architecture: String {
        #if arch(x86_64)
        "x86_64"
        #else
        "aarch64"
        #endif
    }

    /// An output over all pictures.
    private struct Span {
        var low = Float.infinity
        var high = -Float.infinity
        var difference: Float = 0

        mutating func add(_ reference: Tensor, _ found: Float) {
            low = min(low, reference.values.min() ?? .nan)
            high = max(high, reference.values.max() ?? .nan)
            difference = max(difference, found)
        }

        var share: Double { Double(difference) / (Double(high) - Double(low)) }
    }

    /// Infinite where there is nothing to compare, or NaN.
    private static func largestDifference(_ a: Tensor, _ b: Tensor?) -> Float {
        guard let b, a.shape == b.shape else { return .infinity }
        return zip(a.values, b.values).reduce(0) { largest, pair in
            let difference = abs(pair.0 - pair.1)
            return difference.isNaN ? .infinity : max(largest, difference)
        }
    }

    /// What is not the same, in words; nil where nothing is.
    private static func compare(
        _ expected: Prediction, _ found: Prediction, _ logits: Tensor?, _ furthest: Float, _ row: inout ParityRow
    ) -> String? {
        switch (expected, found) {
        case (.classifications(let a), .classifications(let b)):
            let isSame =
                a.map(\.index) == b.map(\.index) && a.map(\.label) == b.map(\.label)
                && zip(a, b).allSatisfy { abs($0.probability - $1.probability) <= maxProbability }
            return isSame ? nil : "\(b), not \(a)"
        case (.detections(let a), .detections(let b)):
            let isSame =
                a.map(\.index) == b.map(\.index) && a.map(\.label) == b.map(\.label)
                && zip(a, b).allSatisfy { one, other in
                    zip(corners(one.box), corners(other.box)).allSatisfy { abs($0 - $1) <= maxCorner }
                        && abs(Double(one.score) - Double(other.score)) <= maxProbability
                }
            return isSame ? nil : "\(b), not \(a)"
        case (.classMap(let a), .classMap(let b)):
            guard let logits, a.width == b.width, a.height == b.height else { return "a map of another size" }
            return comparePixels(a, b, logits, furthest, &row)
        default:
            return "a result of another task"
        }
    }

    private static func corners(_ box: Box) -> [Float] { [box.x1, box.y1, box.x2, box.y2] }

    /// A pixel may be of another class where Python's logits of both are nearer than what the outputs differ by.
    private static func comparePixels(
        _ expected: ClassMap, _ found: ClassMap, _ logits: Tensor, _ furthest: Float, _ row: inout ParityRow
    ) -> String? {
        var decided = 0
        for place in expected.classes.indices where expected.classes[place] != found.classes[place] {
            row.otherPixels += 1
            let (x, y) = (place % expected.width, place / expected.width)
            let theirs = logit(logits, Int(expected.classes[place]), x, y, expected)
            let ours = logit(logits, Int(found.classes[place]), x, y, expected)
            if abs(theirs - ours) <= 2 * Double(furthest) { row.tiedPixels += 1 } else { decided += 1 }
        }
        return decided == 0 ? nil : "\(decided) pixels are of another class"
    }

    /// A class's logit at a pixel of the map, interpolated.
    private static func logit(_ logits: Tensor, _ channel: Int, _ x: Int, _ y: Int, _ map: ClassMap) -> Double {
        let (rows, columns) = (logits.shape[2], logits.shape[3])
        let (top, bottom, down) = taps(y, rows, map.height)
        let (left, right, across) = taps(x, columns, map.width)
        func value(_ row: Int, _ column: Int) -> Double {
            Double(logits.values[(channel * rows + row) * columns + column])
        }
        let a = value(top, left) + (value(bottom, left) - value(top, left)) * down
        let b = value(top, right) + (value(bottom, right) - value(top, right)) * down
        return a + (b - a) * across
    }

    private static func taps(_ target: Int, _ size: Int, _ count: Int) -> (Int, Int, Double) {
        let centre = (Double(target) + 0.5) * (Double(size) / Double(count)) - 0.5
        let position = min(max(centre, 0), Double(size - 1))
        let first = Int(position)
        return (first, min(first + 1, size - 1), position - Double(first))
    }

    /// A table in Markdown.
    static func markdown(_ rows: [ParityRow]) -> String {
        let columns = [
            "bundle", "format", "engine", "Python's", "pictures", "same input bytes", "largest difference",
            "same results", "golden: difference", "golden: SNR", "golden: agreement",
        ]
        let lines = rows.map { row in
            [
                row.bundle, row.format, row.engine, row.pythonEngine, "\(row.pictures)", "\(row.sameInputs)",
                String(format: "%.1e", row.largestDifference),
                "\(row.sameResults) of \(row.pictures)" + (row.tiedPixels > 0 ? ", \(row.tiedPixels) tied pixels" : ""),
                String(format: "%.1e", row.goldenRelativeMax), String(format: "%.1f dB", row.goldenSnrDb ?? .infinity),
                String(format: "%.2f %%", 100 * row.goldenAgreement),
            ]
        }
        let rule = [String](repeating: "---", count: columns.count)
        return ([columns, rule] + lines).map { "| \($0.joined(separator: " | ")) |\n" }.joined()
    }
}
