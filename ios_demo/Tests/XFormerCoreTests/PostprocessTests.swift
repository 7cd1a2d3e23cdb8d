import TestSupport
import XCTest

@testable import XFormerCore

final class PostprocessTests: XCTestCase {
    private let labels = ["cat", "dog", "cup"]

    private func rule() throws -> DetectionRule {
        try DetectionRule(
            anchors: [
                [Anchor(width: 10, height: 13), Anchor(width: 16, height: 8)], [Anchor(width: 30, height: 24)],
            ],
            strides: [8, 16])
    }

    private func classify() throws -> Postprocess { try Postprocess(task: .classify, labels: labels) }

    private func segment() throws -> Postprocess { try Postprocess(task: .segment, labels: labels) }

    private func detect() throws -> Postprocess {
        try Postprocess(task: .detect, labels: labels, detection: rule())
    }

    private func fit(_ width: Int, _ height: Int, _ rule: ResizeRule = .resize) throws -> Fit {
        try Fit.of(
            source: PixelSize(width: width, height: height), target: ImageSize(height: 64, width: 64), rule: rule)
    }

    private func logits(_ values: Float...) throws -> Outputs { try logits(values) }

    private func logits(_ values: [Float]) throws -> Outputs {
        ["logits": try Tensor(shape: [1, values.count], values: values)]
    }

    private func map(_ classes: Int, _ height: Int, _ width: Int, value: (Int) -> Float) throws -> Outputs {
        let values = (0..<classes * height * width).map(value)
        return ["logits": try Tensor(shape: [1, classes, height, width], values: values)]
    }

    private func boxMaps(_ value: (Int) -> Float) throws -> Outputs {
        [
            "stride8": try Tensor(shape: [1, 16, 8, 8], values: (0..<1024).map(value)),
            "stride16": try Tensor(shape: [1, 8, 4, 4], values: (0..<128).map(value)),
        ]
    }

    private func classes(_ prediction: Prediction) throws -> [Classification] {
        guard case .classifications(let found) = prediction else { throw Other() }
        return found
    }

    private func boxes(_ prediction: Prediction) throws -> [Detection] {
        guard case .detections(let found) = prediction else { throw Other() }
        return found
    }

    /// A result of another task.
    private struct Other: Error {}

    // MARK: - Classes

    func testClassesByFallingLogit() throws {
        let cases: [(name: String, logits: [Float], expected: [Int])] = [
            ("rising", [1, 2, 3], [2, 1, 0]),
            ("equal ones by index", [1, 2, 2], [1, 2, 0]),
            ("zeros of both signs are equal", [-0.0, 0, -0.0], [0, 1, 2]),
            ("negative ones", [-3, -1, -2], [1, 2, 0]),
            ("denormal ones", [0, .leastNonzeroMagnitude, -.leastNonzeroMagnitude], [1, 0, 2]),
            ("the largest", [-.greatestFiniteMagnitude, .greatestFiniteMagnitude, 0], [1, 2, 0]),
        ]
        for item in cases {
            let found = try classes(classify()(logits(item.logits), fit: fit(1, 1)))
            XCTAssertEqual(found.map(\.index), item.expected, item.name)
            XCTAssertEqual(found.map(\.label), item.expected.map { labels[$0] }, item.name)
        }
    }

    func testDrawnProbabilitiesAddUpToOneAndFall() throws {
        try forSeeds(100) { random in
            let count = Int.random(in: 1..<60, using: &random)
            let scale: Float = Bool.random(using: &random) ? .leastNonzeroMagnitude * 100 : 200
            let values = (0..<count).map { _ in Float.random(in: -0.5..<0.5, using: &random) * scale }
            let rule = try Postprocess(task: .classify, labels: values.indices.map { "label \($0)" }, topK: count)
            let found = try classes(rule(logits(values), fit: fit(1, 1)))
            XCTAssertEqual(found.reduce(0) { $0 + $1.probability }, 1, accuracy: 1e-9)
            XCTAssertEqual(found.map(\.index), values.indices.sorted { (values[$1], $0) < (values[$0], $1) })
            XCTAssertTrue(zip(found, found.dropFirst()).allSatisfy { $0.probability >= $1.probability })
        }
    }

    func testNoMoreClassesThanThereAreOrAreAskedFor() throws {
        for (topK, expected) in [(9, 3), (2, 2)] {
            let rule = try Postprocess(task: .classify, labels: labels, topK: topK)
            XCTAssertEqual(try classes(rule(logits(1, 2, 3), fit: fit(1, 1))).count, expected)
        }
    }

    // MARK: - Boxes

    /// What ``detect(_:rule:labels:fit:)`` does, word by word from section 6 of docs/preprocessing.md, with arrays.
    private func expected(_ outputs: Outputs, _ rule: DetectionRule, _ fit: Fit) throws -> [Detection] {
        func sigmoid(_ x: Float) -> Float {
            let decay = exp(-abs(x))
            return x >= 0 ? 1 / (1 + decay) : decay / (1 + decay)
        }
        var candidates: [Detection] = []
        for (stride, anchors) in zip(rule.strides, rule.anchors) {
            let map = try XCTUnwrap(outputs["stride\(stride)"])
            let (channels, height, width) = (map.shape[1] / anchors.count, map.shape[2], map.shape[3])
            for (number, anchor) in anchors.enumerated() {
                for row in 0..<height {
                    for column in 0..<width {
                        func channel(_ c: Int) -> Float {
                            map.values[((number * channels + c) * height + row) * width + column]
                        }
                        let cx = (sigmoid(channel(0)) + Float(column)) * Float(stride)
                        let cy = (sigmoid(channel(1)) + Float(row)) * Float(stride)
                        let hw = anchor.width * exp(min(channel(2), 10)) / 2
                        let hh = anchor.height * exp(min(channel(3), 10)) / 2
                        func x(_ x: Float) -> Float {
                            let scale = Float(fit.source.width) / Float(fit.resized.width)
                            return min(max((x - Float(fit.offset.x)) * scale, 0), Float(fit.source.width))
                        }
                        func y(_ y: Float) -> Float {
                            let scale = Float(fit.source.height) / Float(fit.resized.height)
                            return min(max((y - Float(fit.offset.y)) * scale, 0), Float(fit.source.height))
                        }
                        let box = Box(x1: x(cx - hw), y1: y(cy - hh), x2: x(cx + hw), y2: y(cy + hh))
                        for (index, label) in labels.enumerated() {
                            let score = sigmoid(channel(4)) * sigmoid(channel(5 + index))
                            if score < rule.scoreThreshold { continue }
                            candidates.append(Detection(index: index, label: label, score: score, box: box))
                        }
                    }
                }
            }
        }
        let order = candidates.indices
            .filter { candidates[$0].box.x2 > candidates[$0].box.x1 && candidates[$0].box.y2 > candidates[$0].box.y1 }
            .sorted { (candidates[$1].score, $0) < (candidates[$0].score, $1) }
        var kept: [Detection] = []
        for one in order.map({ candidates[$0] }) where kept.count < rule.maxDetections {
            let isOverlapped = kept.contains { $0.index == one.index && overlap($0.box, one.box, rule.iouThreshold) }
            if !isOverlapped { kept.append(one) }
        }
        return kept
    }

    private func overlap(_ a: Box, _ b: Box, _ threshold: Float) -> Bool {
        let width = max(min(a.x2, b.x2) - max(a.x1, b.x1), 0)
        let height = max(min(a.y2, b.y2) - max(a.y1, b.y1), 0)
        let both = width * height
        return both > threshold * ((a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) - both)
    }

    func testDrawnMapsGiveTheBoxesOfTheFormulas() throws {
        var total = 0
        try forSeeds(150) { random in
            let fit = try fit(
                Int.random(in: 1..<300, using: &random), Int.random(in: 1..<300, using: &random),
                XCTUnwrap(ResizeRule.allCases.randomElement(using: &random)))
            let outputs = try boxMaps { _ in
                let scale: Float = Int.random(in: 0..<40, using: &random) == 0 ? 90 : 6
                return Float.random(in: -0.5..<0.5, using: &random) * scale
            }
            var drawn = try rule()
            drawn.scoreThreshold = try XCTUnwrap([0, 0.25, 0.5, 1].randomElement(using: &random))
            drawn.iouThreshold = try XCTUnwrap([0, 0.45, 1].randomElement(using: &random))
            drawn.maxDetections = Int.random(in: 1..<200, using: &random)
            let found = try boxes(Postprocess(task: .detect, labels: labels, detection: drawn)(outputs, fit: fit))
            XCTAssertEqual(found, try expected(outputs, drawn, fit))
            total += found.count
        }
        XCTAssertGreaterThan(total, 1000, "the test says little")
    }

    func testNoCandidateIsNoBox() throws {
        XCTAssertEqual(try detect()(boxMaps { _ in -20 }, fit: fit(100, 80)), .detections([]))
    }

    func testAScoreOfTheThresholdIsACandidateAndOneBelowIsNot() throws {
        // sigmoid(0) is exactly a half, its square a quarter.
        for (threshold, expected) in [(Float(0.25), 1), (Float(0.25).nextUp, 0)] {
            var rule = try rule()
            rule.scoreThreshold = threshold
            rule.maxDetections = 1
            let detect = try Postprocess(task: .detect, labels: labels, detection: rule)
            XCTAssertEqual(try boxes(detect(boxMaps { _ in 0 }, fit: fit(64, 64))).count, expected)
        }
    }

    func testManyCandidatesAreNoTrouble() throws {
        let many = (0..<80).map { "label \($0)" }
        let rule = try DetectionRule(
            anchors: [[Anchor](repeating: Anchor(width: 8, height: 8), count: 3)], strides: [8], scoreThreshold: 0,
            maxDetections: 300)
        let side = 32
        var drawn = Drawn(seed: 3)
        let map = try Tensor(shape: [1, 3 * 85, side, side], values: drawn.floats(3 * 85 * side * side))
        let detect = try Postprocess(task: .detect, labels: many, detection: rule)
        let found = try boxes(detect(["stride8": map], fit: fit(256, 256)))
        XCTAssertEqual(found.count, 300)
        XCTAssertTrue(zip(found, found.dropFirst()).allSatisfy { $0.score >= $1.score })
    }

    // MARK: - Class maps

    func testDrawnClassMapsAreThoseOfTheFormulas() throws {
        try forSeeds(80) { random in
            let classes = Int.random(in: 1..<6, using: &random)
            let (height, width) = (Int.random(in: 1..<12, using: &random), Int.random(in: 1..<12, using: &random))
            let size = PixelSize(
                width: Int.random(in: 1..<60, using: &random), height: Int.random(in: 1..<60, using: &random))
            let values = (0..<classes * height * width).map { _ in  // many ties
                Float(Int.random(in: -3..<4, using: &random)) / 4
            }
            let rule = try Postprocess(task: .segment, labels: (0..<classes).map { "label \($0)" })
            let found = try rule.segment(map(classes, height, width) { values[$0] }, at: size)
            func taps(_ i: Int, _ n: Int, _ m: Int) -> (Int, Int, Float) {
                let centre = (Double(i) + 0.5) * (Double(n) / Double(m)) - 0.5
                let position = min(max(centre, 0), Double(n - 1))
                let a = Int(position.rounded(.down))
                return (a, min(a + 1, n - 1), Float(position - Double(a)))
            }
            for y in 0..<size.height {
                for x in 0..<size.width {
                    let (top, bottom, down) = taps(y, height, size.height)
                    let (left, right, across) = taps(x, width, size.width)
                    let z = (0..<classes).map { c in
                        func v(_ row: Int, _ column: Int) -> Float { values[(c * height + row) * width + column] }
                        let a = v(top, left) + (v(bottom, left) - v(top, left)) * down
                        let b = v(top, right) + (v(bottom, right) - v(top, right)) * down
                        return a + (b - a) * across
                    }
                    XCTAssertEqual(found[x: x, y: y], z.firstIndex(of: try XCTUnwrap(z.max())), "at (\(x), \(y))")
                }
            }
        }
    }

    func testAClassMapOfTheSourceSizeOrOfAnother() throws {
        var drawn = Drawn(seed: 1)
        let values = drawn.floats(3 * 256)
        let outputs = try map(3, 16, 16) { values[$0] }
        guard case .classMap(let whole) = try segment()(outputs, fit: fit(40, 30)) else { return XCTFail() }
        XCTAssertEqual([whole.width, whole.height], [40, 30])
        XCTAssertEqual(try segment().segment(outputs, at: PixelSize(width: 40, height: 30)), whole)
        let small = try segment().segment(outputs, at: PixelSize(width: 16, height: 16))
        let expected = (0..<256).map { place in
            (0..<3).max { values[256 * $0 + place] < values[256 * $1 + place] }
        }
        XCTAssertEqual(small.classes.map { Int($0) }, expected)
    }

    func testAnElongatedClassMap() throws {
        let outputs = try map(3, 4, 4) { $0 / 16 == 2 ? 1 : 0 }
        for size in [PixelSize(width: 1, height: 60_000), PixelSize(width: 60_000, height: 1)] {
            XCTAssertEqual(
                try segment().segment(outputs, at: size).shares(), [ClassShare(index: 2, label: "cup", share: 1)])
        }
    }

    // MARK: - What is refused

    func testValuesThatAreNotFiniteAreRefusedInEveryTask() throws {
        for value in [Float.nan, .infinity, -.infinity] {
            var other = try logits(0, 0, 0)
            other["other"] = try Tensor(shape: [1], values: [value])
            let cases: [(String, Postprocess, Outputs)] = [
                ("classify", try classify(), try logits(0, value, 0)),
                ("detect", try detect(), try boxMaps { $0 == 127 ? value : 0 }),
                ("segment", try segment(), try map(3, 4, 4) { $0 == 47 ? value : 0 }),
                ("another output", try classify(), other),
            ]
            for (name, postprocess, outputs) in cases {
                let message = refusal(.bundle, "\(value) in \(name)") { try postprocess(outputs, fit: fit(5, 5)) }
                XCTAssertTrue(
                    message.hasPrefix("the artifact returned values that are NaN or infinite in '"), message)
            }
        }
    }

    func testDrawnFloatsOfAnyBitsGiveAResultOrARefusal() throws {
        let odd: [Float] = [
            0, -0.0, .leastNonzeroMagnitude, .greatestFiniteMagnitude, -.greatestFiniteMagnitude, 88.8, -103.9,
        ]
        var results = 0
        try forSeeds(200) { random in
            let isMostlyFinite = Int.random(in: 0..<4, using: &random) > 0
            func value() throws -> Float {
                let drawn =
                    switch Int.random(in: 0..<3, using: &random) {
                    case 0: Float(bitPattern: UInt32.random(in: 0...UInt32.max, using: &random))
                    case 1: try XCTUnwrap(odd.randomElement(using: &random))
                    default: Float.random(in: -4..<4, using: &random)
                    }
                return isMostlyFinite && !drawn.isFinite ? 0 : drawn
            }
            func values(_ count: Int) throws -> [Float] { try (0..<count).map { _ in try value() } }
            let (some, boxValues, mapValues) = (try values(3), try values(1024), try values(60))
            let cases = [
                (try classify(), try logits(some)),
                (try detect(), try boxMaps { boxValues[$0] }),
                (try segment(), try map(3, 4, 5) { mapValues[$0] }),
            ]
            for (postprocess, outputs) in cases {
                let isFinite = outputs.values.allSatisfy(\.isFinite)
                let fit = try fit(Int.random(in: 1..<99, using: &random), Int.random(in: 1..<99, using: &random))
                do {
                    let result = try postprocess(outputs, fit: fit)
                    XCTAssertTrue(isFinite)
                    results += 1
                    switch result {
                    case .classifications(let found):
                        XCTAssertTrue(found.allSatisfy { (0...1).contains($0.probability) })
                    case .detections(let found):
                        XCTAssertTrue(
                            found.allSatisfy {
                                (0...1).contains($0.score) && $0.box.x2 > $0.box.x1 && $0.box.y2 > $0.box.y1
                            })
                    case .classMap(let found):
                        XCTAssertEqual([found.width, found.height], [fit.source.width, fit.source.height])
                    }
                } catch XFormerError.bundle {
                    XCTAssertFalse(isFinite)
                }
            }
        }
        XCTAssertGreaterThan(results, 300, "the test says little")
    }

    func testOutputsOfAnotherModelAreRefused() throws {
        var lacking = try boxMaps { _ in 0 }
        lacking["stride16"] = nil
        var narrow = try boxMaps { _ in 0 }
        narrow["stride16"] = try Tensor(shape: [1, 7, 1, 1], values: [Float](repeating: 0, count: 7))
        let pair = ["logits": try Tensor(shape: [2, 3, 1, 1], values: [Float](repeating: 0, count: 6))]
        let cases: [(String, Postprocess, Outputs, String)] = [
            ("nothing", try classify(), [:], "the artifact returned nothing; it has no output 'logits'"),
            ("no logits", try classify(), lacking, "the artifact returned stride8; it has no output 'logits'"),
            ("logits of another rank", try classify(), try map(3, 1, 1) { _ in 0 }, "its rank must be 2"),
            ("logits of other classes", try classify(), try logits(0, 0), "must begin with (1, 3)"),
            ("a scale missing", try detect(), lacking, "has no output 'stride16'"),
            ("a scale of other channels", try detect(), narrow, "(1, 8)"),
            ("a map of two pictures", try segment(), pair, "(1, 3)"),
        ]
        for (name, postprocess, outputs, problem) in cases {
            let message = refusal(.bundle, name) { try postprocess(outputs, fit: fit(5, 5)) }
            XCTAssertTrue(message.contains(problem), "\(name): \(message)")
        }
    }

    func testCallsThatCannotBeRightAreRefused() throws {
        let maps = try map(3, 1, 1) { _ in 0 }
        let sizes = [(0, 4), (4, -1), (20_000, 20_000), (Int.max, Int.max)]
        for (width, height) in sizes {
            _ = refusal(.usage, "\(width)x\(height)") {
                try segment().segment(maps, at: PixelSize(width: width, height: height))
            }
        }
        _ = refusal(.usage) { try classify().segment(logits(0, 0, 0), at: PixelSize(width: 4, height: 4)) }
        _ = refusal(.usage) { try Postprocess(task: .detect, labels: labels) }
        _ = refusal(.usage) { try Postprocess(task: .classify, labels: labels, topK: 0) }
        let many = [String](repeating: "label", count: 65_537)
        _ = refusal(.usage) { try Postprocess(task: .segment, labels: many) }
        XCTAssertNoThrow(try Postprocess(task: .segment, labels: many.dropLast()))
        _ = refusal(.usage) { try DetectionRule(anchors: [], strides: []) }
        _ = refusal(.usage) { try DetectionRule(anchors: rule().anchors, strides: [8]) }
    }

    func testNumbersOfARuleMayBeWild() throws {
        // A manifest's are checked; these are what nobody checks.
        let wild = try DetectionRule(
            anchors: [
                [Anchor(width: .infinity, height: .nan), Anchor(width: -1, height: 0)], [Anchor(width: 1, height: 1)],
            ],
            strides: [8, 16], scoreThreshold: 0, iouThreshold: .nan, maxDetections: -1)
        let detect = try Postprocess(task: .detect, labels: labels, detection: wild)
        let nowhere = PixelSize(width: 0, height: -5)
        let fit = Fit(
            source: nowhere, resized: nowhere, offset: PixelPoint(x: .min, y: .max), target: nowhere)
        for value in [Float(0), 100, -1000] {
            XCTAssertEqual(try detect(boxMaps { _ in value }, fit: fit), .detections([]))
        }
        XCTAssertEqual(Postprocess.defaultPalette(classes: -1), [])
    }
}
