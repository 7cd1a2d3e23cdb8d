import TestSupport
import XCTest

@testable import XFormerCore

/// The bytes that the Python code makes, bit for bit.
final class PreprocessGoldenTests: XCTestCase {
    private let golden = Golden("preprocess")

    /// tree_sha256 of the Python code, and treeSha256 of the Kotlin code, have the same sums.
    func testTheFixturesAreThoseThatPythonAndKotlinRead() throws {
        let sums = try JSONDecoder().decode([String: String].self, from: Golden(".").data("sums.json"))
        XCTAssertEqual(Set(sums.keys), ["preprocess", "postprocess"])
        for (folder, sum) in sums {
            XCTAssertEqual(try treeSha256(Golden.root.appendingPathComponent(folder)), sum)
            print("golden: the sha256 of tests/golden/\(folder): \(sum)")
        }
    }

    private struct Document<Case: Decodable>: Decodable {
        let cases: [Case]
    }

    private struct FitCase: Decodable {
        let source: [Int]
        let target: [Int]
        let rule: ResizeRule
        let resized: [Int]
        let offset: [Int]

        func imageSize() throws -> ImageSize { try ImageSize(pair: target) }

        var expected: Fit {
            Fit(
                source: PixelSize(pair: source), resized: PixelSize(pair: resized), offset: PixelPoint(pair: offset),
                target: PixelSize(width: target[1], height: target[0]))
        }
    }

    private struct PictureCase: Decodable {
        let name: String
        let image: String
        let pixels: String
        let expected: String
        let sha256: String
        let fit: FitCase

        private enum Keys: CodingKey {
            case name, image, pixels, expected, sha256
        }

        init(from decoder: any Decoder) throws {
            let fields = try decoder.container(keyedBy: Keys.self)
            name = try fields.decode(String.self, forKey: .name)
            image = try fields.decode(String.self, forKey: .image)
            pixels = try fields.decode(String.self, forKey: .pixels)
            expected = try fields.decode(String.self, forKey: .expected)
            sha256 = try fields.decode(String.self, forKey: .sha256)
            fit = try FitCase(from: decoder)
        }
    }

    private struct Orientations: Decodable {
        struct Picture: Decodable {
            let size: [Int]
            let rgb: [UInt8]
            let orientation: Int?

            func image() throws -> RgbImage { try RgbImage(width: size[0], height: size[1], bytes: rgb) }
        }

        let stored: Picture
        let cases: [Picture]
    }

    func testPictureToBytes() throws {
        let cases = try golden.document(Document<PictureCase>.self, "cases.json").cases
        let passed = try cases.count { item in
            let size = PixelSize(pair: item.fit.source)
            let image = try RgbImage(width: size.width, height: size.height, bytes: golden.bytes(item.pixels))
            let made = try Preprocess.preprocess(image, target: item.fit.imageSize(), rule: item.fit.rule)
            let expected = try golden.bytes(item.expected)
            return same(sha256(expected), item.sha256, "\(item.name): the fixture's sha256")
                && same(made.fit, item.fit.expected, item.name)
                && same(made.image.bytes == expected, true, "\(item.name): bytes")
        }
        report("cases.json, every byte of a picture", passed, of: cases.count)
    }

    func testPicturesAreDecodedToTheirPixels() throws {
        let cases = try golden.document(Document<PictureCase>.self, "cases.json").cases
        for item in cases {
            XCTAssertEqual(try decodePng(golden.data(item.image)).bytes, try golden.bytes(item.pixels), item.image)
        }
        XCTAssertFalse(cases.isEmpty)
    }

    func testSizesAndOffsets() throws {
        let cases = try golden.document(Document<FitCase>.self, "fit.json").cases
        let passed = try cases.count { item in
            let fit = try Fit.of(source: PixelSize(pair: item.source), target: item.imageSize(), rule: item.rule)
            return same(fit, item.expected, "\(item)")
        }
        report("fit.json, sizes and offsets", passed, of: cases.count)
    }

    func testStoredToUprightByExifOrientation() throws {
        let document = try golden.document(Orientations.self, "orientation.json")
        let stored = try document.stored.image()
        let passed = try document.cases.count { item in
            let orientation = try XCTUnwrap(item.orientation)
            let upright = Preprocess.upright(stored, exifOrientation: orientation)
            return same(upright, try item.image(), "orientation \(orientation)")
        }
        report("orientation.json, every byte of a picture", passed, of: document.cases.count)
    }

    private func same<Value: Equatable>(_ found: Value, _ expected: Value, _ what: String) -> Bool {
        XCTAssertEqual(found, expected, what)
        return found == expected
    }

    /// A line for a summary.
    private func report(_ what: String, _ passed: Int, of count: Int) {
        XCTAssertGreaterThan(count, 0)
        print("golden: preprocess/\(what): \(passed) of \(count) cases pass")
    }
}
