import TestSupport
import XCTest

@testable import XFormerCore

final class PreprocessTests: XCTestCase {
    private func square() throws -> ImageSize { try ImageSize(height: 64, width: 64) }

    // MARK: - Drawn pictures

    func testDrawnPicturesComeOutAsByThePagesFormulas() throws {
        var compared = 0
        try forSeeds(60) { random in
            let source = try random.picture(side(&random), side(&random))
            let target = try ImageSize(
                height: 64 * .random(in: 1...3, using: &random), width: 64 * .random(in: 1...3, using: &random))
            let rule = ResizeRule.allCases[.random(in: 0..<3, using: &random)]
            let made = try Preprocess.preprocess(source, target: target, rule: rule)
            // The page's words make the whole picture, of which the input shows a part: too slow for the longest.
            guard made.fit.resized.width * max(made.fit.resized.height, source.height) <= 30_000 else { return }
            compared += 1
            XCTAssertTrue(
                made.image.bytes == expected(source, made.fit),
                "\(source.width)x\(source.height) to \(target) by \(rule)")
        }
        XCTAssertGreaterThan(compared, 25)
    }

    /// Sides of which many are one, or one more or less than a target's.
    private func side(_ random: inout Seeded) -> Int {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: .random(in: 1...3, using: &random)
        case 1: 64 * .random(in: 1...3, using: &random) + .random(in: -1...1, using: &random)
        case 2: .random(in: 1..<80, using: &random)
        default: .random(in: 1..<200, using: &random)
        }
    }

    /// Section 3 of docs/preprocessing.md word by word: the whole picture, one axis after the other, then the crop.
    private func expected(_ source: RgbImage, _ fit: Fit) -> [UInt8] {
        let (width, height) = (fit.resized.width, fit.resized.height)
        let narrow = resized(source.bytes, from: source.width, lines: source.height, to: width)
        // The height likewise: rows and columns exchanged before and after.
        let turned = transposed(narrow, width: width, height: source.height)
        let scaled = resized(turned, from: source.height, lines: width, to: height)
        let whole = transposed(scaled, width: height, height: width)
        var canvas = [UInt8](repeating: 114, count: 3 * fit.target.width * fit.target.height)
        for y in 0..<fit.target.height {
            for x in 0..<fit.target.width {
                let (column, row) = (x - fit.offset.x, y - fit.offset.y)
                guard (0..<width).contains(column), (0..<height).contains(row) else { continue }
                let (to, from) = (3 * (y * fit.target.width + x), 3 * (row * width + column))
                canvas[to..<to + 3] = whole[from..<from + 3]
            }
        }
        return canvas
    }

    private func resized(_ bytes: [UInt8], from n: Int, lines: Int, to m: Int) -> [UInt8] {
        if n == m { return bytes }
        let scale = Double(n) / Double(m)
        let reach = max(scale, 1.0)
        var made = [UInt8](repeating: 0, count: 3 * m * lines)
        for i in 0..<m {
            let centre = (Double(i) + 0.5) * scale
            let first = max(Int((centre - reach + 0.5).rounded(.towardZero)), 0)
            let last = min(Int((centre + reach + 0.5).rounded(.towardZero)), n)
            let shares = (first..<last).map { max(0.0, 1.0 - abs((Double($0) - centre + 0.5) * (1.0 / reach))) }
            let total = shares.reduce(0, +)
            let weights = shares.map { Int((0.5 + $0 / total * 4_194_304).rounded(.towardZero)) }
            for line in 0..<lines {
                for channel in 0..<3 {
                    var sum = 1 << 21
                    for (tap, weight) in weights.enumerated() {
                        sum += weight * Int(bytes[3 * (line * n + first + tap) + channel])
                    }
                    made[3 * (line * m + i) + channel] = UInt8(min(max(sum >> 22, 0), 255))
                }
            }
        }
        return made
    }

    private func transposed(_ bytes: [UInt8], width: Int, height: Int) -> [UInt8] {
        var turned = [UInt8](repeating: 0, count: bytes.count)
        for y in 0..<height {
            for x in 0..<width {
                for channel in 0..<3 {
                    turned[3 * (x * height + y) + channel] = bytes[3 * (y * width + x) + channel]
                }
            }
        }
        return turned
    }

    func testAPictureOfOneColorStaysSo() throws {
        try forSeeds(20) { random in
            let color = random.bytes(3)
            let (width, height) = (Int.random(in: 1..<300, using: &random), Int.random(in: 1..<300, using: &random))
            let source = try plain(width, height, color)
            for rule in [ResizeRule.resize, .resizeShorterCenterCrop] {
                let made = try Preprocess.preprocess(source, target: square(), rule: rule).image.bytes
                // The weights of many small taps need not add up to one exactly.
                let largest = made.indices.map { abs(Int(made[$0]) - Int(color[$0 % 3])) }.max()
                XCTAssertLessThanOrEqual(try XCTUnwrap(largest), 1, "\(width)x\(height) by \(rule)")
            }
        }
    }

    private func plain(_ width: Int, _ height: Int, _ color: [UInt8]) throws -> RgbImage {
        try RgbImage(width: width, height: height, bytes: (0..<3 * width * height).map { color[$0 % 3] })
    }

    func testAPictureOfTheInputsSizeIsNotChanged() throws {
        var random = Seeded(1)
        let source = try random.picture(128, 64)
        for rule in [ResizeRule.resize, .letterbox] {
            let made = try Preprocess.preprocess(source, target: ImageSize(height: 64, width: 128), rule: rule)
            XCTAssertTrue(made.image == source, "\(rule)")
        }
    }

    func testTheFitIsInsideOrCoversTheInput() throws {
        try forSeeds(300) { random in
            let source = PixelSize(
                width: .random(in: 1..<5000, using: &random), height: .random(in: 1..<5000, using: &random))
            let target = try ImageSize(
                height: 64 * .random(in: 1...64, using: &random), width: 64 * .random(in: 1...64, using: &random))
            let inside = try Fit.of(source: source, target: target, rule: .letterbox)
            XCTAssertTrue(inside.resized.width == target.width || inside.resized.height == target.height)
            XCTAssertTrue(inside.offset.x >= 0 && inside.offset.x + inside.resized.width <= target.width)
            XCTAssertTrue(inside.offset.y >= 0 && inside.offset.y + inside.resized.height <= target.height)
            let covering = try Fit.of(source: source, target: target, rule: .resizeShorterCenterCrop)
            XCTAssertTrue(covering.offset.x <= 0 && covering.offset.x + covering.resized.width >= target.width)
            XCTAssertTrue(covering.offset.y <= 0 && covering.offset.y + covering.resized.height >= target.height)
        }
    }

    // MARK: - Row sources

    private final class Rows: RowSource {
        let image: RgbImage
        var asked: [Int] = []

        init(_ image: RgbImage) {
            self.image = image
        }

        var width: Int { image.width }
        var height: Int { image.height }

        func row(_ y: Int, into: UnsafeMutableBufferPointer<UInt8>) throws {
            asked.append(y)
            into.update(repeating: 99)  // nobody relies on what was there
            try image.row(y, into: into)
        }
    }

    func testRowsAreAskedForOnceFromTheTopAndNotWhereTheyAreCropped() throws {
        try forSeeds(20) { random in
            let image = try random.picture(.random(in: 1..<200, using: &random), .random(in: 1..<200, using: &random))
            for rule in ResizeRule.allCases {
                let rows = Rows(image)
                let made = try Preprocess.preprocess(rows, target: square(), rule: rule)
                XCTAssertTrue(made.image == (try Preprocess.preprocess(image, target: square(), rule: rule)).image)
                XCTAssertEqual(rows.asked, Set(rows.asked).sorted())
            }
        }
        let tall = Rows(try plain(64, 6400, [1, 2, 3]))
        _ = try Preprocess.preprocess(tall, target: square(), rule: .resizeShorterCenterCrop)
        XCTAssertLessThan(tall.asked.count, 80, "of a picture of which 64 rows are shown")
    }

    private struct Gradient: RowSource {
        let width = 2000
        let height = 1500

        func row(_ y: Int, into: UnsafeMutableBufferPointer<UInt8>) {
            into.update(repeating: UInt8(y * 255 / height))
        }
    }

    func testAPictureNeedNotLieInMemory() throws {
        let made = try Preprocess.preprocess(Gradient(), target: square(), rule: .resize).image.bytes
        let column = (0..<64).map { made[3 * 64 * $0] }
        XCTAssertEqual(column, column.sorted())
        XCTAssertLessThan(column[0], 3)
        XCTAssertGreaterThan(column[63], 250)
    }

    func testAnErrorOfARowIsPassedOn() {
        struct Broken: RowSource {
            let width = 100
            let height = 100

            func row(_ y: Int, into: UnsafeMutableBufferPointer<UInt8>) throws {
                if y == 50 { throw CancellationError() }
            }
        }
        XCTAssertThrowsError(try Preprocess.preprocess(Broken(), target: square(), rule: .resize)) { error in
            XCTAssertTrue(error is CancellationError)
        }
    }

    func testManyThreadsGetTheSameBytes() throws {
        let target = try square()
        let images = try (0..<6).map { index in
            var random = Seeded(index)
            return try random.picture(50 + 37 * index, 40 + 23 * index)
        }
        @Sendable func all() -> [RgbImage] {
            images.flatMap { image in
                ResizeRule.allCases.compactMap { try? Preprocess.preprocess(image, target: target, rule: $0).image }
            }
        }
        let expected = all()
        XCTAssertEqual(expected.count, 18)
        let found = Found()
        DispatchQueue.concurrentPerform(iterations: 12) { _ in found.append(all() == expected) }
        XCTAssertEqual(found.all, Array(repeating: true, count: 12))
    }

    private final class Found: @unchecked Sendable {
        private let lock = NSLock()
        private var values: [Bool] = []

        func append(_ value: Bool) { lock.withLock { values.append(value) } }
        var all: [Bool] { lock.withLock { values } }
    }

    // MARK: - What is refused

    private struct Blank: RowSource {
        let width: Int
        let height: Int

        func row(_ y: Int, into: UnsafeMutableBufferPointer<UInt8>) throws {
            XCTFail("no row may be asked for")
        }
    }

    func testAPictureThatCanNotBeScaledIsRefused() throws {
        let square = try square()
        let wide = try ImageSize(height: 64, width: 4096)
        let refused: [(name: String, width: Int, height: Int, target: ImageSize, rule: ResizeRule, problem: String)] = [
            ("no width", 0, 5, square, .resize, "has no pixels"),
            ("negative height", 5, -1, square, .resize, "has no pixels"),
            ("more pixels than 178,956,970", 16_385, 10_923, square, .resize, "more than 178956970"),
            ("more pixels than a number tells", .max, .max, square, .resize, "more than 178956970"),
            ("a side longer than 2^20", (1 << 20) + 1, 1, square, .resize, "too elongated"),
            ("a height longer than 2^20", 1, (1 << 20) + 1, square, .letterbox, "too elongated"),
            ("more than 2^26 pixels, scaled", 1, 20_000, square, .resizeShorterCenterCrop, "too elongated"),
            ("more pixels when it is narrowed", 1, 100_000, wide, .resize, "too elongated"),
            ("a size beyond 32 bits", 1, 1 << 20, wide, .resizeShorterCenterCrop, "too elongated"),
        ]
        for item in refused {
            let image = Blank(width: item.width, height: item.height)
            let message = refusal(.image, item.name) {
                try Preprocess.preprocess(image, target: item.target, rule: item.rule)
            }
            XCTAssertTrue(message.contains(item.problem), "\(item.name): \(message)")
        }
    }

    func testAFitOfAnySizeIsFoundOrRefused() throws {
        let sides = [Int.min, -1, 0, 1, 2, 1 << 20, 1 << 31, 1 << 32, 1 << 62, Int.max]
        for target in [try square(), try ImageSize(height: 4096, width: 64)] {
            for width in sides {
                for height in sides {
                    for rule in ResizeRule.allCases {
                        do {
                            let source = PixelSize(width: width, height: height)
                            let fit = try Fit.of(source: source, target: target, rule: rule)
                            XCTAssertGreaterThan(min(fit.resized.width, fit.resized.height), 0)
                        } catch let error as XFormerError {
                            guard case .image = error else { return XCTFail("\(error)") }
                        }
                    }
                }
            }
        }
    }

    func testPicturesAtTheLimitsAreTaken() throws {
        let long = 1 << 20
        let white = try RgbImage(width: long, height: 1, bytes: .init(repeating: 255, count: 3 * long))
        let line = try Preprocess.preprocess(white, target: square(), rule: .resize)
        XCTAssertTrue(line.image.bytes.allSatisfy { $0 == 255 })
        let column = try RgbImage(width: 1, height: long, bytes: .init(repeating: 7, count: 3 * long))
        let letterbox = try Preprocess.preprocess(column, target: square(), rule: .letterbox)
        XCTAssertEqual(letterbox.fit.resized, PixelSize(width: 1, height: 64))
        XCTAssertEqual(Array(letterbox.image.bytes[3 * 30..<3 * 30 + 7]), [114, 114, 114, 7, 7, 7, 114])
    }

    // MARK: - EXIF

    func testAnOrientationAndTheOneThatUndoesItGiveThePictureBack() throws {
        for (orientation, back) in [1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6] {
            try forSeeds(10) { random in
                let image = try random.picture(.random(in: 1...8, using: &random), .random(in: 1...8, using: &random))
                let upright = Preprocess.upright(image, exifOrientation: orientation)
                XCTAssertEqual(Preprocess.upright(upright, exifOrientation: back), image)
            }
        }
    }

    func testAnOrientationThatIsNoneChangesNothing() throws {
        var random = Seeded(1)
        let image = try random.picture(3, 2)
        for orientation in [Int.min, -1, 0, 1, 9, Int.max] {
            XCTAssertEqual(Preprocess.upright(image, exifOrientation: orientation), image)
        }
    }
}
