import TestSupport
import XCTest

@testable import XFormerCore

/// The results that the Python code gives, within each file's tolerance; what has none is exact.
final class PostprocessGoldenTests: XCTestCase {
    private let golden = Golden("postprocess")

    private struct FitFields: Decodable {
        let source: [Int]
        let resized: [Int]
        let offset: [Int]
        let target: [Int]

        var fit: Fit {
            Fit(
                source: PixelSize(pair: source), resized: PixelSize(pair: resized), offset: PixelPoint(pair: offset),
                target: PixelSize(pair: target))
        }
    }

    // MARK: - Classes

    private struct ClassifyDocument: Decodable {
        struct Tolerance: Decodable {
            let probability: Double
        }

        struct Case: Decodable {
            let name: String
            let logits: [Float]
            let labels: [String]
            let topK: Int
            let expected: [Expected]
        }

        struct Expected: Decodable {
            let index: Int
            let label: String
            let probability: Double
        }

        let tolerance: Tolerance
        let cases: [Case]
    }

    func testClassify() throws {
        let document = try golden.document(ClassifyDocument.self, "classify.json")
        let side = PixelSize(width: 64, height: 64)
        let fit = Fit(source: side, resized: side, offset: PixelPoint(x: 0, y: 0), target: side)
        try check(document.cases, "classify.json") { item in
            let rule = try Postprocess(task: .classify, labels: item.labels, topK: item.topK)
            let outputs = ["logits": try Tensor(shape: [1, item.logits.count], values: item.logits)]
            guard case .classifications(let found) = try rule(outputs, fit: fit) else { return false }
            return found.map(\.index) == item.expected.map(\.index)
                && found.map(\.label) == item.expected.map(\.label)
                && zip(found, item.expected).allSatisfy {
                    near($0.probability, $1.probability, document.tolerance.probability)
                }
        }
    }

    // MARK: - Boxes

    private struct DetectDocument: Decodable {
        struct Tolerance: Decodable {
            let score: Double
            let box: Double
        }

        struct Case: Decodable {
            let name: String
            let labels: [String]
            let rule: Rule
            let maps: Maps
            let fit: FitFields
            let expected: [Expected]
        }

        struct Rule: Decodable {
            let anchors: [[[Float]]]
            let strides: [Int]
            let scoreThreshold: Float
            let iouThreshold: Float
            let maxDetections: Int

            func detectionRule() throws -> DetectionRule {
                try DetectionRule(
                    anchors: anchors.map { scale in scale.map { Anchor(width: $0[0], height: $0[1]) } },
                    strides: strides, scoreThreshold: scoreThreshold, iouThreshold: iouThreshold,
                    maxDetections: maxDetections)
            }
        }

        struct Maps: Decodable {
            let file: String
            let shapes: [[Int]]
        }

        struct Expected: Decodable {
            let index: Int
            let label: String
            let score: Double
            let box: [Double]
        }

        let tolerance: Tolerance
        let cases: [Case]
    }

    func testDetect() throws {
        let document = try golden.document(DetectDocument.self, "detect.json")
        let tolerance = document.tolerance
        try check(document.cases, "detect.json") { item in
            let rule = try Postprocess(task: .detect, labels: item.labels, detection: item.rule.detectionRule())
            let outputs = try outputs(item.maps, strides: item.rule.strides)
            guard case .detections(let found) = try rule(outputs, fit: item.fit.fit) else { return false }
            return found.map(\.index) == item.expected.map(\.index)
                && found.map(\.label) == item.expected.map(\.label)
                && zip(found, item.expected).allSatisfy { one, other in
                    let corners = [one.box.x1, one.box.y1, one.box.x2, one.box.y2].map(Double.init)
                    return near(Double(one.score), other.score, tolerance.score)
                        && zip(corners, other.box).allSatisfy { near($0, $1, tolerance.box) }
                }
        }
    }

    private func outputs(_ maps: DetectDocument.Maps, strides: [Int]) throws -> Outputs {
        var values = try golden.floats(maps.file)[...]
        var outputs: Outputs = [:]
        for (stride, shape) in zip(strides, maps.shapes) {
            let size = shape.reduce(1, *)
            outputs["stride\(stride)"] = try Tensor(shape: shape, values: Array(values.prefix(size)))
            values = values.dropFirst(size)
        }
        return outputs
    }

    // MARK: - Class maps

    private struct SegmentDocument: Decodable {
        struct Tolerance: Decodable {
            let share: Double
        }

        struct Case: Decodable {
            let name: String
            let classes: Int
            let fit: FitFields
            let logits: Logits
            let expected: Expected
        }

        struct Logits: Decodable {
            let file: String
            let shape: [Int]
        }

        struct Expected: Decodable {
            let file: String
            let type: String
            let shape: [Int]
            let shares: [[Double]]
        }

        let tolerance: Tolerance
        let palette: [[UInt8]]
        let cases: [Case]
    }

    func testSegment() throws {
        let document = try golden.document(SegmentDocument.self, "segment.json")
        try check(document.cases, "segment.json") { item in
            let rule = try Postprocess(task: .segment, labels: (0..<item.classes).map { "label \($0)" })
            let outputs = [
                "logits": try Tensor(shape: item.logits.shape, values: golden.floats(item.logits.file))
            ]
            guard case .classMap(let found) = try rule(outputs, fit: item.fit.fit) else { return false }
            let shares = found.shares()
            return try [found.height, found.width] == item.expected.shape
                && found.classes == classes(item.expected)
                && shares.map { Double($0.index) } == item.expected.shares.map { $0[0] }
                && zip(shares, item.expected.shares).allSatisfy { near($0.share, $1[1], document.tolerance.share) }
        }
    }

    func testDefaultPalette() throws {
        let expected = try golden.document(SegmentDocument.self, "segment.json").palette
        XCTAssertEqual(
            Postprocess.defaultPalette(classes: expected.count).map { [$0.red, $0.green, $0.blue] }, expected)
    }

    private func classes(_ expected: SegmentDocument.Expected) throws -> [UInt16] {
        let bytes = try golden.bytes(expected.file).map(UInt16.init)
        if expected.type == "u8" { return bytes }
        return stride(from: 0, to: bytes.count, by: 2).map { bytes[$0] | bytes[$0 + 1] << 8 }
    }

    // MARK: - All

    private func near(_ found: Double, _ expected: Double, _ tolerance: Double) -> Bool {
        abs(found - expected) <= tolerance
    }

    /// Checks every case, and prints a line for a summary.
    private func check<Case>(_ cases: [Case], _ file: String, _ passes: (Case) throws -> Bool) throws {
        let passed = try cases.filter { item in
            let isSame = try passes(item)
            XCTAssertTrue(isSame, "\(item)")
            return isSame
        }
        XCTAssertFalse(cases.isEmpty)
        print("golden: postprocess/\(file): \(passed.count) of \(cases.count) cases pass")
    }
}
