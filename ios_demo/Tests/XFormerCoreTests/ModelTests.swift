import XCTest
import XFormerCore

final class ModelTests: XCTestCase {
    func testSidesAreMultiplesOf64() throws {
        XCTAssertEqual(try ImageSize(height: 64, width: 4096).description, "64x4096")
        for side in [0, -64, 63, 65, 4160, .min, .max] {
            XCTAssertThrowsError(try ImageSize(height: side, width: 64)) { error in
                XCTAssertEqual(
                    error as? XFormerError,
                    .usage(
                        "image size \(side)x64 is not valid: both sides must be multiples of 64, from 64 to 4096"))
            }
        }
    }

    func testAnErrorIsItsMessage() {
        let error: any Error = XFormerError.image("a picture of 0x0 has no pixels")
        XCTAssertEqual(error.localizedDescription, "a picture of 0x0 has no pixels")
        XCTAssertEqual("\(error)", "a picture of 0x0 has no pixels")
    }

    func testATensorHasAsManyValuesAsItsShape() throws {
        XCTAssertTrue(try Tensor(shape: [1, 2], values: [1, 2]).isFinite)
        XCTAssertFalse(try Tensor(shape: [1, 2], values: [1, .nan]).isFinite)
        XCTAssertFalse(try Tensor(shape: [1], values: [-.infinity]).isFinite)
        for shape in [[2], [1, 0], [-1, -1], [.max, .max], [.min, 2]] {
            XCTAssertThrowsError(try Tensor(shape: shape, values: [0])) { error in
                guard case .usage = error as? XFormerError else { return XCTFail("\(error)") }
            }
        }
    }

    func testAPictureHasAsManyBytesAsItsPixels() throws {
        let image = try RgbImage(width: 1, height: 2, bytes: [1, 2, 3, 4, 5, 6])
        var row = [UInt8](repeating: 0, count: 4)
        try row.withUnsafeMutableBufferPointer { try image.row(1, into: $0) }
        XCTAssertEqual(row, [4, 5, 6, 0])
        for y in [-1, 2, .max, .min] {
            XCTAssertThrowsError(try row.withUnsafeMutableBufferPointer { try image.row(y, into: $0) })
        }
        for (width, height) in [(0, 1), (-1, -1), (1, 1), (.max, .max), (.max, 1), (178_956_971, 1), (.min, .min)] {
            XCTAssertThrowsError(try RgbImage(width: width, height: height, bytes: [1, 2])) { error in
                guard case .image = error as? XFormerError else { return XCTFail("\(error)") }
            }
        }
    }

    func testAClassMapTellsSharesAndColors() throws {
        let map = try ClassMap(width: 3, height: 2, classes: [2, 0, 2, 1, 0, 2], labels: ["a", "b", "c", "d"])
        XCTAssertEqual(map[x: 0, y: 1], 1)
        XCTAssertEqual(map.shares().map(\.index), [2, 0, 1])
        XCTAssertEqual(map.shares().map(\.share), [3.0 / 6, 2.0 / 6, 1.0 / 6])
        let tied = try ClassMap(width: 2, height: 2, classes: [1, 0, 0, 1], labels: ["a", "b"])
        XCTAssertEqual(tied.shares().map(\.label), ["a", "b"])
        let palette = (0..<4).map { Rgb(red: $0, green: 10 + $0, blue: 20 + $0) }
        XCTAssertEqual(Array(try map.rgba(palette: palette, alpha: 128).prefix(8)), [2, 12, 22, 128, 0, 10, 20, 128])
        XCTAssertThrowsError(try map.rgba(palette: Array(palette.prefix(3))))
        XCTAssertThrowsError(try ClassMap(width: 1, height: 1, classes: [1], labels: ["a"]))
        XCTAssertThrowsError(try ClassMap(width: .max, height: .max, classes: [0], labels: ["a"]))
        XCTAssertThrowsError(try ClassMap(width: 0, height: 0, classes: [], labels: ["a"]))
    }
}
