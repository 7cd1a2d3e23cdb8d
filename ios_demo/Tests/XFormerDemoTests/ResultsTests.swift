import Foundation
import XCTest
import XFormerCore

@testable import XFormerDemo

private let palette = [
    Rgb(red: 0, green: 0, blue: 0), Rgb(red: 128, green: 0, blue: 0), Rgb(red: 0, green: 128, blue: 0),
]

private func detection(_ index: Int, _ label: String, score: Float = 0.5) -> Detection {
    Detection(index: index, label: label, score: score, box: Box(x1: 0, y1: 0, x2: 2, y2: 1))
}

final class ResultRowsTests: XCTestCase {
    func testFiveBestClasses() {
        let found = (0..<7).map { Classification(index: $0, label: "c\($0)", probability: 0.5 - Double($0) / 20) }
        let rows = ResultRows(.classifications(found), palette: [])
        XCTAssertEqual(rows.rows.map(\.text), ["c0, 50 %", "c1, 45 %", "c2, 40 %", "c3, 35 %", "c4, 30 %"])
        XCTAssertEqual(rows.rows.map(\.color), Array(repeating: nil, count: 5))
        XCTAssertEqual(rows.othersText, "and 2 more")
    }

    func testBoxesHaveTheirColors() {
        let rows = ResultRows(.detections([detection(1, "car"), detection(8, "dog")]), palette: [])
        XCTAssertEqual(rows.rows.map(\.color), [ClassColors.color(of: 1), ClassColors.color(of: 1)])
        XCTAssertNotEqual(ClassColors.color(of: 0), ClassColors.color(of: 1))
        XCTAssertNil(rows.othersText)
    }

    func testTheLegendLeavesOutWhatIsTooSmall() throws {
        let classes = Array(repeating: UInt16(1), count: 992) + Array(repeating: UInt16(2), count: 8)
        let map = try ClassMap(width: 100, height: 10, classes: classes, labels: ["sky", "road", "car"])
        let rows = ResultRows(.classMap(map), palette: palette)
        XCTAssertEqual(rows.rows, [ResultRow(label: "road", share: 0.992, color: palette[1])])
        XCTAssertEqual(rows.othersText, "1 other class, 1 %")
    }

    func testAlmostNothingIsNotALine() throws {
        let classes = Array(repeating: UInt16(1), count: 999) + [2]
        let map = try ClassMap(width: 100, height: 10, classes: classes, labels: ["sky", "road", "car"])
        XCTAssertNil(ResultRows(.classMap(map), palette: palette).othersText)
    }
}

final class ResultTextTests: XCTestCase {
    func testSentences() throws {
        let map = try ClassMap(width: 4, height: 1, classes: [0, 0, 0, 1], labels: ["sky", "road"])
        let cases: [(Prediction, String)] = [
            (.classifications([]), "No result"),
            (.classifications([Classification(index: 0, label: "cat", probability: 0.914)]), "Probably cat, 91 %"),
            (.detections([]), "No objects found"),
            (.detections([detection(0, "dog")]), "1 object: dog"),
            (.detections([detection(0, "dog"), detection(1, "car"), detection(0, "dog")]), "3 objects: dog (2), car"),
            (.classMap(map), "sky 75 %, road 25 %"),
        ]
        for (prediction, sentence) in cases { XCTAssertEqual(ResultText.sentence(for: prediction), sentence) }
    }

    func testVoiceOverIsNotFlooded() {
        var throttle = AnnouncementThrottle(quietNs: 100)
        XCTAssertEqual(throttle.next("cat", at: 0), "cat")
        XCTAssertNil(throttle.next("dog", at: 99))
        XCTAssertNil(throttle.next("cat", at: 500))
        XCTAssertEqual(throttle.next("dog", at: 500), "dog")
        throttle.reset()
        XCTAssertEqual(throttle.next("dog", at: 501), "dog")
    }
}

final class ColoredMapTests: XCTestCase {
    func testColorsWithAlpha() throws {
        let map = try ClassMap(width: 2, height: 1, classes: [2, 1], labels: ["a", "b", "c"])
        let colored = try ColoredMap(map, palette: palette)
        XCTAssertEqual(colored.rgba, [0, 128, 0, 144, 128, 0, 0, 144])
        XCTAssertEqual(colored.image()?.width, 2)
    }

    func testALargeMapIsThinnedOut() throws {
        let classes = (0..<2049 * 3).map { UInt16($0 % 2049 % 3) }
        let map = try ClassMap(width: 2049, height: 3, classes: classes, labels: ["a", "b", "c"])
        let colored = try ColoredMap(map, palette: palette)
        XCTAssertEqual([colored.width, colored.height], [683, 1])
        XCTAssertEqual(Set(colored.rgba.indices.filter { $0 % 4 == 1 }.map { colored.rgba[$0] }), [0])
    }

    func testTooFewColorsAreRefused() throws {
        let map = try ClassMap(width: 1, height: 1, classes: [0], labels: ["a", "b", "c", "d"])
        XCTAssertThrowsError(
            try Drawing(
                source: PixelSize(width: 1, height: 1), isMirrored: false, prediction: .classMap(map),
                palette: palette))
    }
}

final class ViewTransformTests: XCTestCase {
    private let source = PixelSize(width: 400, height: 200)
    private let box = Box(x1: 0, y1: 0, x2: 100, y2: 50)

    func testFit() {
        let transform = ViewTransform(
            source: source, view: CGSize(width: 200, height: 200), mode: .fit, isMirrored: false)
        XCTAssertEqual(transform.picture, CGRect(x: 0, y: 50, width: 200, height: 100))
        XCTAssertEqual(transform.map(box), CGRect(x: 0, y: 50, width: 50, height: 25))
    }

    func testFill() {
        let transform = ViewTransform(
            source: source, view: CGSize(width: 200, height: 200), mode: .fill, isMirrored: false)
        XCTAssertEqual(transform.picture, CGRect(x: -100, y: 0, width: 400, height: 200))
        XCTAssertEqual(transform.map(box), CGRect(x: -100, y: 0, width: 100, height: 50))
    }

    func testMirrored() {
        let transform = ViewTransform(
            source: source, view: CGSize(width: 400, height: 200), mode: .fit, isMirrored: true)
        XCTAssertEqual(transform.map(box), CGRect(x: 300, y: 0, width: 100, height: 50))
    }
}

final class LabelLayoutTests: XCTestCase {
    private let view = CGSize(width: 100, height: 100)
    private let size = CGSize(width: 40, height: 10)

    private func place(_ boxes: [CGRect], sizes: [CGSize]? = nil) -> [CGRect] {
        LabelLayout.place(boxes: boxes, sizes: sizes ?? boxes.map { _ in size }, view: view)
    }

    func testAboveTheBox() {
        XCTAssertEqual(
            place([CGRect(x: 10, y: 50, width: 20, height: 20)]), [CGRect(x: 10, y: 40, width: 40, height: 10)])
    }

    func testInsideTheView() {
        XCTAssertEqual(
            place([CGRect(x: 90, y: -20, width: 50, height: 30)]), [CGRect(x: 60, y: 0, width: 40, height: 10)])
        XCTAssertEqual(
            place([CGRect(x: -5, y: 5, width: 5, height: 5)], sizes: [CGSize(width: 500, height: 500)]),
            [CGRect(x: 0, y: 0, width: 100, height: 100)])
    }

    func testOffEachOther() {
        let box = CGRect(x: 10, y: 50, width: 20, height: 30)
        XCTAssertEqual(place([box, box, box, box, box]).map(\.minY), [40, 50, 70, 80, 40])
    }
}

final class FiguresTests: XCTestCase {
    func testNumbers() {
        XCTAssertEqual(Figures.percent(0.914), "91 %")
        XCTAssertEqual(Figures.exactPercent(0.99954), "99.95 %")
        XCTAssertEqual(Figures.milliseconds(12_340_000), "12.3 ms")
        XCTAssertEqual(Figures.scientific(1.234e-5), "1.2e-05")
        XCTAssertEqual(Figures.decibels(35.16), "35.2 dB")
        XCTAssertEqual(Figures.size(width: 4, height: 3), "4 × 3")
    }
}
