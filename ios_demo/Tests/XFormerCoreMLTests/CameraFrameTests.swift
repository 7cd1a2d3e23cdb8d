import CoreML
import CoreVideo
import ImageIO
import TestSupport
import XCTest
import XFormerCore

@testable import XFormerCoreML

final class CameraFrameTests: XCTestCase {
    override func tearDown() {
        #if os(Linux)
        CoreMLDouble.reset()
        #endif
    }

    private let full = kCVPixelFormatType_420YpCbCr8BiPlanarFullRange
    private let video = kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange

    // MARK: - Colors

    func testEveryColorIsWithinOneOfTheFormula() {
        let weights: [(Double, Double)] = [(0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)]
        for (red, blue) in weights {
            for isFullRange in [true, false] {
                let factors = YCbCr(red: red, blue: blue, isFullRange: isFullRange)
                for y in stride(from: 0, through: 255, by: 5) {
                    for u in stride(from: 0, through: 255, by: 15) {
                        for v in stride(from: 0, through: 255, by: 15) {
                            let made = factors.rgb(y: UInt8(y), u: UInt8(u), v: UInt8(v))
                            let exact = formula(red, blue, isFullRange, Double(y), Double(u), Double(v))
                            for (found, wanted) in zip([made.red, made.green, made.blue], exact) {
                                XCTAssertEqual(
                                    Double(found), wanted, accuracy: 1, "\(red) \(isFullRange) \(y) \(u) \(v)")
                            }
                        }
                    }
                }
            }
        }
    }

    /// Real numbers, 0..255.
    private func formula(
        _ kr: Double, _ kb: Double, _ isFullRange: Bool, _ y: Double, _ u: Double, _ v: Double
    ) -> [Double] {
        let luma = isFullRange ? y : (y - 16) * 255 / 219
        let scale = isFullRange ? 1 : 255.0 / 224
        let (cb, cr) = ((u - 128) * scale, (v - 128) * scale)
        let red = luma + 2 * (1 - kr) * cr
        let blue = luma + 2 * (1 - kb) * cb
        let green = (luma - kr * red - kb * blue) / (1 - kr - kb)
        return [red, green, blue].map { max(0, min($0, 255)) }
    }

    func testTheFactorsOfBT601AreThoseOfTheAndroidLibrary() {
        let factors = YCbCr(red: 0.299, blue: 0.114, isFullRange: true)
        XCTAssertEqual(factors.yFactor, 65536)
        XCTAssertEqual(
            [factors.redOfV, factors.greenOfU, factors.greenOfV, factors.blueOfU], [91881, 22554, 46802, 116130])
    }

    func testGreyStaysGrey() throws {
        for (format, black, white) in [(full, UInt8(0), UInt8(255)), (video, 16, 235)] {
            for (luma, expected) in [(black, UInt8(0)), (white, 255)] {
                let frame = try planar(
                    format, width: 2, height: 2, luma: { _, _ in luma }, chroma: { _, _ in (128, 128) })
                XCTAssertEqual(try CameraFrame.rgb(frame).bytes, [UInt8](repeating: expected, count: 12))
            }
        }
    }

    func testTheBuffersMatrixIsUsed() throws {
        let cases: [(CFString?, Double, Double)] = [
            (nil, 0.299, 0.114),
            (kCVImageBufferYCbCrMatrix_ITU_R_601_4, 0.299, 0.114),
            (kCVImageBufferYCbCrMatrix_ITU_R_709_2, 0.2126, 0.0722),
            (kCVImageBufferYCbCrMatrix_ITU_R_2020, 0.2627, 0.0593),
        ]
        for (matrix, red, blue) in cases {
            let frame = try planar(
                full, width: 1, height: 1, matrix: matrix, luma: { _, _ in 120 }, chroma: { _, _ in (90, 200) })
            let color = YCbCr(red: red, blue: blue, isFullRange: true).rgb(y: 120, u: 90, v: 200)
            XCTAssertEqual(try CameraFrame.rgb(frame).bytes, [color.red, color.green, color.blue])
        }
        let other = try planar(
            full, width: 1, height: 1, matrix: kCVImageBufferYCbCrMatrix_SMPTE_240M_1995, luma: { _, _ in 1 },
            chroma: { _, _ in (1, 1) })
        XCTAssertTrue(refusal(XFormerError.image) { try CameraFrame.rgb(other) }.contains("SMPTE_240M_1995"))
    }

    // MARK: - Geometry

    func testPlanesWithPaddedRowsAndOddSides() throws {
        for (width, height) in [(1, 1), (3, 5), (4, 2), (7, 1), (1, 6)] {
            for orientation in 1...8 {
                let frame = try planar(
                    full, width: width, height: height, luma: { x, y in UInt8(10 + 20 * y + 3 * x) },
                    chroma: { x, y in (UInt8(100 + 10 * x), UInt8(140 + 9 * y)) })
                let upright = try CameraFrame.rgb(
                    frame, orientation: XCTUnwrap(CGImagePropertyOrientation(rawValue: UInt32(orientation))))
                let factors = YCbCr(red: 0.299, blue: 0.114, isFullRange: true)
                var stored: [UInt8] = []
                for y in 0..<height {
                    for x in 0..<width {
                        let color = factors.rgb(
                            y: UInt8(10 + 20 * y + 3 * x), u: UInt8(100 + 10 * (x / 2)), v: UInt8(140 + 9 * (y / 2)))
                        stored += [color.red, color.green, color.blue]
                    }
                }
                let picture = try RgbImage(width: width, height: height, bytes: stored)
                XCTAssertEqual(upright, Preprocess.upright(picture, exifOrientation: orientation))
            }
        }
    }

    func testBGRADropsAlpha() throws {
        var random = Seeded(3)
        let picture = try random.picture(5, 3)
        for alpha in [UInt8(0), 128, 255] {
            XCTAssertEqual(try CameraFrame.rgb(pixelBuffer(picture, alpha: alpha)), picture)
        }
    }

    // MARK: - Refusals

    func testOtherFormatsAreRefused() throws {
        let others = [(kCVPixelFormatType_420YpCbCr10BiPlanarFullRange, "'xf20'"), (kCVPixelFormatType_32ARGB, "'32'")]
        for (format, name) in others {
            let frame = try pixelBuffer(format, width: 2, height: 2) { _, _, _ in }
            XCTAssertEqual(
                refusal(XFormerError.image) { try CameraFrame.rgb(frame) },
                "the frame has the pixel format \(name); ask the camera for '420f', '420v', 'BGRA'")
        }
    }

    #if os(Linux)  // the double can refuse a lock, and tells of one that is left
    func testABufferThatCannotBeLockedIsRefused() throws {
        let frame = try pixelBuffer(kCVPixelFormatType_32BGRA, width: 2, height: 2) { _, _, _ in }
        CoreVideoDouble.lockFailure = kCVReturnError
        XCTAssertEqual(
            refusal(XFormerError.image) { try CameraFrame.rgb(frame) }, "the frame can't be read: error -6660")
    }
    #endif

    #if os(Linux)  // the double can refuse a lock, and tells of one that is left
    func testTheBufferIsUnlockedWhenReadingThrows() throws {
        let frame = try pixelBuffer(kCVPixelFormatType_32BGRA, width: 2, height: 2) { _, _, _ in }
        XCTAssertThrowsError(try CameraFrame.withRows(frame, orientation: .up) { _ in throw CancellationError() })
        // The double ends the test where a buffer is freed while it is locked.
        XCTAssertEqual(CVPixelBufferGetBaseAddress(frame), nil)
    }
    #endif

    private func planar(
        _ format: OSType, width: Int, height: Int, matrix: CFString? = nil, luma: (Int, Int) -> UInt8,
        chroma: (Int, Int) -> (UInt8, UInt8)
    ) throws -> CVPixelBuffer {
        try pixelBuffer(format, width: width, height: height, matrix: matrix) { plane, start, bytesPerRow in
            if plane == 0 {
                for y in 0..<height {
                    for x in 0..<width { start[y * bytesPerRow + x] = luma(x, y) }
                }
            } else {
                for y in 0..<(height + 1) / 2 {
                    for x in 0..<(width + 1) / 2 {
                        let (u, v) = chroma(x, y)
                        start[y * bytesPerRow + 2 * x] = u
                        start[y * bytesPerRow + 2 * x + 1] = v
                    }
                }
            }
        }
    }
}
