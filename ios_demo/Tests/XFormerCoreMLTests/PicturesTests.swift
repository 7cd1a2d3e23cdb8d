import CoreGraphics
import ImageIO
import TestSupport
import XCTest
import XFormerCore

@testable import XFormerCoreML

final class PicturesTests: XCTestCase {
    private let grey = CGColorSpace(name: CGColorSpace.genericGrayGamma2_2)

    // MARK: - Layouts

    func testEveryLayoutOfColorsGivesTheSameBytes() throws {
        var random = Seeded(2)
        let pixels = (0..<6).map { _ in random.bytes(3) }
        let rows: [(CGImageAlphaInfo, CGImageByteOrderInfo, ([UInt8]) -> [UInt8])] = [
            (.none, .orderDefault, { $0 }),
            (.last, .orderDefault, { $0 + [9] }),
            (.noneSkipLast, .order32Big, { $0 + [9] }),
            (.noneSkipLast, .order32Little, { [9] + $0.reversed() }),
            (.first, .orderDefault, { [9] + $0 }),
            (.noneSkipFirst, .order32Big, { [9] + $0 }),
            (.noneSkipFirst, .order32Little, { $0.reversed() + [9] }),
            (.premultipliedLast, .orderDefault, { $0 + [255] }),
            (.premultipliedFirst, .order32Little, { $0.reversed() + [255] }),
        ]
        for (alpha, order, store) in rows {
            let bytes = pixels.map(store)
            let across = bytes[0].count
            let padded = Array(bytes[..<3].joined()) + [7, 7, 7, 7, 7] + Array(bytes[3...].joined())
            let stored = try image(
                padded, width: 3, height: 2, bitsPerPixel: 8 * across, bytesPerRow: 3 * across + 5, alpha: alpha,
                order: order)
            XCTAssertEqual(try Pictures.rgb(stored).bytes, Array(pixels.joined()), "\(alpha), \(order)")
        }
    }

    func testAProfileIsIgnored() throws {
        let stored = try image(
            [200, 100, 50], width: 1, height: 1, bitsPerPixel: 24, space: CGColorSpace(name: CGColorSpace.displayP3))
        XCTAssertEqual(try Pictures.rgb(stored).bytes, [200, 100, 50])
    }

    func testAlphaIsDroppedWithoutBlending() throws {
        let stored = try image([200, 100, 50, 0], width: 1, height: 1, bitsPerPixel: 32, alpha: .last)
        XCTAssertEqual(try Pictures.rgb(stored).bytes, [200, 100, 50])
    }

    func testPremultipliedAlphaIsDividedOut() throws {
        let bytes: [UInt8] = [64, 32, 128, 128] + [0, 0, 0, 0] + [10, 200, 5, 5]
        let stored = try image(bytes, width: 3, height: 1, bitsPerPixel: 32, alpha: .premultipliedLast)
        XCTAssertEqual(try Pictures.rgb(stored).bytes, [128, 64, 255] + [0, 0, 0] + [255, 255, 255])
    }

    func testSixteenBits() throws {
        // Colors lose their lower byte, as in Pillow; grey is rounded.
        let color: [UInt8] = [0xFF, 0x12, 0x80, 0x34, 0x7F, 0xFE]
        let big = try image(color, width: 1, height: 1, bits: 16, bitsPerPixel: 48, order: .order16Big)
        XCTAssertEqual(try Pictures.rgb(big).bytes, [0xFF, 0x80, 0x7F])
        let little = try image(color, width: 1, height: 1, bits: 16, bitsPerPixel: 48, order: .order16Little)
        XCTAssertEqual(try Pictures.rgb(little).bytes, [0x12, 0x34, 0xFE])
        let values = [0, 128, 129, 385, 386, 32767, 65406, 65407, 65535]
        let bytes = values.flatMap { [UInt8($0 & 255), UInt8($0 >> 8)] }
        let stored = try image(
            bytes, width: 9, height: 1, bits: 16, bitsPerPixel: 16, space: grey, order: .order16Little)
        let expected = values.flatMap { value in [UInt8](repeating: UInt8((value * 255 + 32767) / 65535), count: 3) }
        XCTAssertEqual(try Pictures.rgb(stored).bytes, expected)
        XCTAssertEqual(expected[0], 0)
        XCTAssertEqual(expected[6], 1)
    }

    func testSixteenBitsWithAlpha() throws {
        let color: [UInt8] = [0xAB, 1, 0xCD, 2, 0xEF, 3, 0, 0]
        let stored = try image(color, width: 1, height: 1, bits: 16, bitsPerPixel: 64, alpha: .last, order: .order16Big)
        XCTAssertEqual(try Pictures.rgb(stored).bytes, [0xAB, 0xCD, 0xEF])
        let dim: [UInt8] = [0x20, 0, 0x40, 0, 0x10, 0, 0x80, 0]
        let premultiplied = try image(
            dim, width: 1, height: 1, bits: 16, bitsPerPixel: 64, alpha: .premultipliedLast, order: .order16Big)
        XCTAssertEqual(try Pictures.rgb(premultiplied).bytes, [0x40, 0x80, 0x20])
    }

    func testGrey() throws {
        let plain = try image([3, 200], width: 2, height: 1, bitsPerPixel: 8, space: grey)
        XCTAssertEqual(try Pictures.rgb(plain).bytes, [3, 3, 3, 200, 200, 200])
        let alpha = try image([3, 0, 200, 9], width: 2, height: 1, bitsPerPixel: 16, space: grey, alpha: .last)
        XCTAssertEqual(try Pictures.rgb(alpha).bytes, [3, 3, 3, 200, 200, 200])
    }

    func testGreyOfFewBits() throws {
        let one = try image([0b1010_0000, 0b0100_0000], width: 3, height: 2, bits: 1, bitsPerPixel: 1, space: grey)
        XCTAssertEqual(reds(try Pictures.rgb(one)), [255, 0, 255, 0, 255, 0])
        let two = try image([0b0001_1011], width: 4, height: 1, bits: 2, bitsPerPixel: 2, space: grey)
        XCTAssertEqual(reds(try Pictures.rgb(two)), [0, 85, 170, 255])
        let four = try image([0x0F, 0x80], width: 3, height: 1, bits: 4, bitsPerPixel: 4, space: grey)
        XCTAssertEqual(reds(try Pictures.rgb(four, orientation: .down)), [136, 255, 0])
    }

    private func reds(_ picture: RgbImage) -> [UInt8] {
        stride(from: 0, to: picture.bytes.count, by: 3).map { picture.bytes[$0] }
    }

    func testAPalette() throws {
        let table: [UInt8] = [1, 2, 3, 40, 50, 60, 255, 254, 253]
        let base = try XCTUnwrap(CGColorSpace(name: CGColorSpace.sRGB))
        let space = CGColorSpace(indexedBaseSpace: base, last: 2, colorTable: table)
        // The last index is beyond the palette.
        let eight = try image([2, 0, 1, 3], width: 4, height: 1, bitsPerPixel: 8, space: space)
        XCTAssertEqual(try Pictures.rgb(eight).bytes, [255, 254, 253, 1, 2, 3, 40, 50, 60, 0, 0, 0])
        let two = try image([0b0110_0000], width: 2, height: 1, bits: 2, bitsPerPixel: 2, space: space)
        XCTAssertEqual(try Pictures.rgb(two).bytes, [40, 50, 60, 255, 254, 253])
    }

    #if os(Linux)  // the double draws without color management
    func testWhatHasNoLayoutIsDrawn() throws {
        // Floats of a wide gamut: beyond sRGB is clipped.
        let floats: [Float] = [0.5, 1.7, -0.2, 1, 0.25, 0, 1, 1]
        let bytes = floats.flatMap { value in withUnsafeBytes(of: value) { [UInt8]($0) } }
        let wide = try image(
            bytes, width: 1, height: 2, bits: 32, bitsPerPixel: 128,
            space: CGColorSpace(name: CGColorSpace.extendedSRGB), alpha: .last, info: .floatComponents)
        XCTAssertEqual(try Pictures.rgb(wide).bytes, [128, 255, 0, 64, 0, 255])
        XCTAssertEqual(try Pictures.rgb(wide, orientation: .down).bytes, [64, 0, 255, 128, 255, 0])
        let ink = try image(
            [255, 0, 0, 0, 0, 255, 0, 0], width: 2, height: 1, bitsPerPixel: 32,
            space: CGColorSpace(name: CGColorSpace.genericCMYK))
        XCTAssertEqual(try Pictures.rgb(ink, orientation: .right).bytes, [0, 255, 255, 255, 0, 255])
        XCTAssertEqual(try Pictures.rows(ink, orientation: .right).height, 2)
    }
    #endif

    // MARK: - Orientation

    private struct Orientations: Decodable {
        struct Stored: Decodable {
            let size: [Int]
            let rgb: [UInt8]
        }

        struct Case: Decodable {
            let orientation: UInt32
            let size: [Int]
            let rgb: [UInt8]
        }

        let stored: Stored
        let cases: [Case]
    }

    func testGoldenOrientations() throws {
        let golden = try Golden("preprocess").document(Orientations.self, "orientation.json")
        let (width, height) = (golden.stored.size[0], golden.stored.size[1])
        let stored = try image(golden.stored.rgb, width: width, height: height, bitsPerPixel: 24)
        let picture = try RgbImage(width: width, height: height, bytes: golden.stored.rgb)
        var compared = 0
        for one in golden.cases {
            let turn = Turn(orientation: one.orientation, width: width, height: height)
            XCTAssertEqual([turn.width, turn.height], one.size)
            guard let orientation = CGImagePropertyOrientation(rawValue: one.orientation) else { continue }
            compared += 1
            let upright = try Pictures.rgb(stored, orientation: orientation)
            XCTAssertEqual([upright.width, upright.height], one.size, "\(one.orientation)")
            XCTAssertEqual(upright.bytes, one.rgb, "\(one.orientation)")
            let frame = try CameraFrame.rgb(pixelBuffer(picture), orientation: orientation)
            XCTAssertEqual(frame.bytes, one.rgb, "\(one.orientation)")
        }
        XCTAssertEqual(compared, 8)
    }

    // MARK: - Files

    func testGoldenPicturesDecodeToTheirBytes() throws {
        struct Cases: Decodable {
            struct Case: Decodable {
                let image: String
                let pixels: String
            }

            let cases: [Case]
        }
        let golden = Golden("preprocess")
        let pictures = Set(try golden.document(Cases.self, "cases.json").cases.map { [$0.image, $0.pixels] })
        XCTAssertGreaterThan(pictures.count, 5)
        for names in pictures {
            XCTAssertEqual(try Pictures.decoder(golden.data(names[0])).bytes, try golden.bytes(names[1]), names[0])
        }
    }

    func testAFileIsDecodedAsAContentIs() throws {
        let file = try golden()
        let picture = try Pictures.decode(file)
        XCTAssertEqual(try picture.rgb(), try Pictures.decode(Data(contentsOf: file)).rgb())
        XCTAssertEqual(picture.size, PixelSize(width: picture.image.width, height: picture.image.height))
    }

    /// A golden picture's file.
    private func golden(_ prefix: String = "") throws -> URL {
        let folder = Golden.root.appendingPathComponent("preprocess/images")
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
        return folder.appendingPathComponent(
            try XCTUnwrap(names.first { $0.hasPrefix(prefix) && $0.hasSuffix(".png") }))
    }

    func testWhatIsNoPictureIsRefused() async throws {
        let missing = refusal(XFormerError.image) { try Pictures.decode(URL(fileURLWithPath: "/nowhere/cat.png")) }
        XCTAssertEqual(missing, "can't read picture cat.png: it is missing, or may not be read")
        for content in [Data(), Data("no picture".utf8), Data([0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A])] {
            let message = refusal(XFormerError.image) { try Pictures.decode(content) }
            XCTAssertTrue(message.hasPrefix("can't use picture of \(content.count) bytes: it is broken"), message)
        }
    }

    #if os(Linux)  // Apple's decoders may do it otherwise
    func testATruncatedPictureIsRefused() throws {
        let whole = try Data(contentsOf: golden())
        let message = refusal(XFormerError.image) { try Pictures.decode(whole.prefix(whole.count / 2)) }
        XCTAssertTrue(message.hasSuffix("it is truncated or broken"), message)
    }
    #endif

    #if os(Linux)  // Apple's decoders may do it otherwise
    func testAPictureThatIsTooLargeIsRefusedOrSubsampled() throws {
        let content = try Data(contentsOf: golden("astronaut"))
        let whole = try Pictures.decode(content).image
        let limit = whole.width * whole.height - 1
        let message = refusal(XFormerError.image) { try Pictures.decode(content, maxPixels: limit) }
        XCTAssertTrue(message.contains("has \(whole.width)x\(whole.height) pixels, more than \(limit)"), message)
        let half = try Pictures.decode(content, maxPixels: limit, subsample: true)
        XCTAssertEqual(half.image.width, (whole.width + 1) / 2)
        let one = refusal(XFormerError.image) { try Pictures.decode(content, maxPixels: 1, subsample: true) }
        XCTAssertTrue(one.contains("more than 1"), one)
        for limit in [0, -1, Pictures.maxPixels + 1] {
            _ = refusal(XFormerError.usage) { try Pictures.decode(content, maxPixels: limit) }
        }
    }
    #endif

    func testSubsamplingFactors() {
        XCTAssertEqual(Pictures.factor(width: 100, height: 100, maxPixels: 10_000), 1)
        XCTAssertEqual(Pictures.factor(width: 101, height: 100, maxPixels: 10_000), 2)
        XCTAssertEqual(Pictures.factor(width: 12_000, height: 9_000, maxPixels: 10_000_000), 4)
        XCTAssertEqual(Pictures.factor(width: .max, height: .max, maxPixels: 1), 1 << 30)
    }

    // MARK: - Sizes

    func testOnePixel() throws {
        for orientation in 1...8 {
            let stored = try image([1, 2, 3], width: 1, height: 1, bitsPerPixel: 24)
            let upright = try Pictures.rgb(
                stored, orientation: XCTUnwrap(CGImagePropertyOrientation(rawValue: UInt32(orientation))))
            XCTAssertEqual(upright.bytes, [1, 2, 3])
        }
    }

    func testAHugeImageIsReadWithoutAnotherCopy() throws {
        // 12,000 x 9,000 pixels are 324 MB in RGB.
        let (width, height) = (12_000, 9_000)
        let data = try XCTUnwrap(NSMutableData(length: width * height))
        memset(data.mutableBytes, 77, data.length)
        let bytes = data.mutableBytes.assumingMemoryBound(to: UInt8.self)
        bytes[(height - 1) * width] = 1
        bytes[width - 1] = 2
        let stored = try XCTUnwrap(
            CGImage(
                width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 8, bytesPerRow: width,
                space: XCTUnwrap(grey), bitmapInfo: [], provider: XCTUnwrap(CGDataProvider(data: data as CFData)),
                decode: nil,
                shouldInterpolate: false, intent: .defaultIntent))
        let before = peakBytes()
        let rows = try Pictures.rows(stored, orientation: .right)
        XCTAssertEqual([rows.width, rows.height], [height, width])
        var row = [UInt8](repeating: 0, count: 3 * height)
        for y in [0, 1, width / 2, width - 1] {
            try row.withUnsafeMutableBufferPointer { try rows.row(y, into: $0) }
        }
        XCTAssertEqual(row[3 * (height - 1)], 2)
        try row.withUnsafeMutableBufferPointer { try rows.row(0, into: $0) }
        XCTAssertEqual(row[0], 1)
        #if os(Linux)
        let copies = 0
        #else
        let copies = 1  // a data provider may give its data as a copy
        #endif
        XCTAssertLessThan(peakBytes() - before, copies * data.length + 50_000_000)
    }

    /// The most memory of this process so far.
    private func peakBytes() -> Int {
        DeviceInfo().peakResidentBytes() ?? 0
    }

    #if os(Linux)  // the double's way to make such an image
    func testAnImageThatIsTooLargeIsRefused() throws {
        let provider = CGDataProvider(decoding: { nil })
        let huge = try XCTUnwrap(
            CGImage(
                width: 1 << 40, height: 1 << 40, bitsPerComponent: 8, bitsPerPixel: 24, bytesPerRow: 3 << 40,
                space: XCTUnwrap(CGColorSpace(name: CGColorSpace.sRGB)), bitmapInfo: [], provider: provider,
                decode: nil, shouldInterpolate: false, intent: .defaultIntent))
        XCTAssertTrue(refusal(XFormerError.image) { try Pictures.rows(huge) }.contains("more than 178956970 pixels"))
    }
    #endif

    // MARK: - Refusals

    #if os(Linux)  // the double's way to make such an image
    func testAnImageThatCannotBeDecodedIsRefused() throws {
        let stored = try XCTUnwrap(
            CGImage(
                width: 2, height: 2, bitsPerComponent: 8, bitsPerPixel: 24, bytesPerRow: 6,
                space: XCTUnwrap(CGColorSpace(name: CGColorSpace.sRGB)), bitmapInfo: [],
                provider: CGDataProvider(decoding: { nil }), decode: nil, shouldInterpolate: false,
                intent: .defaultIntent))
        XCTAssertTrue(refusal(XFormerError.image) { try Pictures.rows(stored) }.contains("can't be decoded"))
    }
    #endif

    #if os(Linux)  // Apple's Core Graphics makes no such image
    func testTooFewBytesAreRefused() throws {
        let stored = try image([1, 2, 3, 4, 5], width: 2, height: 1, bitsPerPixel: 24)
        XCTAssertEqual(
            refusal(XFormerError.image) { try Pictures.rows(stored) },
            "the image of 2x1 has 5 bytes; it needs 6")
    }
    #endif

    func testAMaskIsRefused() throws {
        let provider = try XCTUnwrap(CGDataProvider(data: NSData(data: Data([255])) as CFData))
        let mask = try XCTUnwrap(
            CGImage(
                maskWidth: 1, height: 1, bitsPerComponent: 8, bitsPerPixel: 8, bytesPerRow: 1, provider: provider,
                decode: nil, shouldInterpolate: false))
        XCTAssertTrue(refusal(XFormerError.image) { try Pictures.rows(mask) }.contains("mask"))
    }

    #if os(Linux)  // Apple's Core Graphics need not make an image of alpha in a color space
    func testAnImageOfAlphaAloneIsRefused() throws {
        let alpha = try image([255], width: 1, height: 1, bitsPerPixel: 8, space: grey, alpha: .alphaOnly)
        XCTAssertTrue(refusal(XFormerError.image) { try Pictures.rows(alpha) }.contains("mask"))
    }
    #endif

    func testRowsOutsideAreRefused() throws {
        let rows = try Pictures.rows(image([1, 2, 3], width: 1, height: 1, bitsPerPixel: 24))
        var short = [UInt8](repeating: 0, count: 2)
        var row = [UInt8](repeating: 0, count: 3)
        for y in [-1, 1, .max, .min] {
            _ = refusal(XFormerError.usage) { try row.withUnsafeMutableBufferPointer { try rows.row(y, into: $0) } }
        }
        _ = refusal(XFormerError.usage) { try short.withUnsafeMutableBufferPointer { try rows.row(0, into: $0) } }
    }

    func testACroppedImageIsReadFromItsOwnFirstPixel() throws {
        var random = Seeded(4)
        let whole = try random.picture(9, 7)
        let cropped = try XCTUnwrap(Pictures.cgImage(whole).cropping(to: CGRect(x: 2, y: 3, width: 5, height: 4)))
        var expected: [UInt8] = []
        for y in 3..<7 {
            let first = 3 * (9 * y + 2)
            expected += whole.bytes[first..<first + 15]
        }
        XCTAssertEqual(try Pictures.rgb(cropped).bytes, expected)
    }

    func testAPictureToShow() throws {
        var random = Seeded(1)
        let picture = try random.picture(5, 4)
        XCTAssertEqual(try Pictures.rgb(Pictures.cgImage(picture)), picture)
    }
}
