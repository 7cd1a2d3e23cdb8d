#if canImport(CoreML)
import CoreVideo
import Foundation
import ImageIO
import XFormerCore

/// Camera frames, in pixel buffers, to upright RGB, in integers.
///
/// Taken are `420f` and `420v` (YCbCr 4:2:0 in two planes, full and video range) and `BGRA`, 8 bits each, rows padded
/// or not. Alpha is dropped.
///
/// YCbCr is converted by the matrix that the buffer's `kCVImageBufferYCbCrMatrixKey` names: ITU-R BT.601, BT.709 or
/// BT.2020; BT.601 where it names none. With y, u, v the bytes of a pixel, all in integers and `>>` rounding towards
/// minus infinity, for BT.601 in full range:
///
///     red   = clip((65536 y                     +  91881 (v - 128) + 32768) >> 16)
///     green = clip((65536 y -  22554 (u - 128)  -  46802 (v - 128) + 32768) >> 16)
///     blue  = clip((65536 y + 116130 (u - 128)                     + 32768) >> 16)
///
/// the same as in the Android library: 1.402, 0.34414, 0.71414 and 1.772, as JFIF prints them, times 65536. The other
/// matrices' factors are made likewise; in video range `y` is `y - 16` times 255/219, and the factors are times 255/224.
/// Each value is within 1 of the formula in real numbers. Chroma is repeated for its two by two pixels, not
/// interpolated.
public enum CameraFrame {
    /// The formats that are taken, by what to write in `AVCaptureVideoDataOutput.videoSettings`.
    public static let pixelFormats: [OSType] = [
        kCVPixelFormatType_420YpCbCr8BiPlanarFullRange,
        kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange,
        kCVPixelFormatType_32BGRA,
    ]

    /// The frame as upright bytes. `orientation` says how it is turned and mirrored.
    ///
    /// - Throws: ``XFormerCore/XFormerError/image(_:)`` for another pixel format or matrix, or a buffer without pixels
    ///   or memory.
    public static func rgb(_ buffer: CVPixelBuffer, orientation: CGImagePropertyOrientation = .up) throws -> RgbImage {
        try withRows(buffer, orientation: orientation) { try $0.rgb() }
    }

    /// Calls `body` with the frame's upright rows, which are valid until it returns.
    static func withRows<Result>(
        _ buffer: CVPixelBuffer, orientation: CGImagePropertyOrientation, _ body: (any RowSource) throws -> Result
    ) throws -> Result {
        let turn = Turn(
            orientation: orientation.rawValue, width: CVPixelBufferGetWidth(buffer),
            height: CVPixelBufferGetHeight(buffer))
        guard turn.width >= 1, turn.height >= 1, turn.width <= Pictures.maxPixels / turn.height else {
            throw XFormerError.image(
                "a frame of \(turn.width)x\(turn.height) is not valid; valid: 1 to \(Pictures.maxPixels) pixels")
        }
        let format = CVPixelBufferGetPixelFormatType(buffer)
        guard pixelFormats.contains(format) else {
            throw XFormerError.image(
                "the frame has the pixel format '\(name(format))'; ask the camera for "
                    + pixelFormats.map { "'\(name($0))'" }.joined(separator: ", "))
        }
        let status = CVPixelBufferLockBaseAddress(buffer, .readOnly)
        guard status == kCVReturnSuccess else { throw XFormerError.image("the frame can't be read: error \(status)") }
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        if format == kCVPixelFormatType_32BGRA {
            let plane = try Plane(
                CVPixelBufferGetBaseAddress(buffer), bytesPerRow: CVPixelBufferGetBytesPerRow(buffer),
                rowBytes: 4 * CVPixelBufferGetWidth(buffer))
            return try body(BGRARows(turn: turn, plane: plane))
        }
        let isFullRange = format == kCVPixelFormatType_420YpCbCr8BiPlanarFullRange
        let factors = try YCbCr.of(buffer, isFullRange: isFullRange)
        let width = CVPixelBufferGetWidth(buffer)
        let luma = try Plane(buffer, 0, rowBytes: width)
        let chroma = try Plane(buffer, 1, rowBytes: 2 * ((width + 1) / 2))
        return try body(YCbCrRows(turn: turn, luma: luma, chroma: chroma, factors: factors))
    }

    /// A format's four letters, or its number where it has none.
    private static func name(_ format: OSType) -> String {
        let letters = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: format >> $0) }
        guard letters.allSatisfy({ (32..<127).contains($0) }) else { return String(format) }
        return String(decoding: letters, as: UTF8.self)
    }
}

/// Bytes of a locked buffer.
private struct Plane {
    let bytes: UnsafePointer<UInt8>
    let bytesPerRow: Int

    init(_ buffer: CVPixelBuffer, _ index: Int, rowBytes: Int) throws {
        try self.init(
            CVPixelBufferGetBaseAddressOfPlane(buffer, index),
            bytesPerRow: CVPixelBufferGetBytesPerRowOfPlane(buffer, index), rowBytes: rowBytes)
    }

    init(_ start: UnsafeMutableRawPointer?, bytesPerRow: Int, rowBytes: Int) throws {
        guard let start, bytesPerRow >= rowBytes else {
            throw XFormerError.image("the frame has \(bytesPerRow) bytes a row or no memory; a row needs \(rowBytes)")
        }
        bytes = UnsafePointer(start.assumingMemoryBound(to: UInt8.self))
        self.bytesPerRow = bytesPerRow
    }
}

private struct BGRARows: RowSource {
    let turn: Turn
    let plane: Plane
    var width: Int { turn.width }
    var height: Int { turn.height }

    func row(_ y: Int, into: UnsafeMutableBufferPointer<UInt8>) {
        let path = turn.path(ofRow: y, bytesPerPixel: 4, bytesPerRow: plane.bytesPerRow)
        var from = path.start
        for x in 0..<width {
            into[3 * x] = plane.bytes[from + 2]
            into[3 * x + 1] = plane.bytes[from + 1]
            into[3 * x + 2] = plane.bytes[from]
            from += path.step
        }
    }
}

private struct YCbCrRows: RowSource {
    let turn: Turn
    let luma: Plane
    let chroma: Plane
    let factors: YCbCr
    var width: Int { turn.width }
    var height: Int { turn.height }

    func row(_ y: Int, into: UnsafeMutableBufferPointer<UInt8>) {
        var place = turn.start(ofRow: y)
        for x in 0..<width {
            let pair = place.y / 2 * chroma.bytesPerRow + 2 * (place.x / 2)
            let color = factors.rgb(
                y: luma.bytes[place.y * luma.bytesPerRow + place.x], u: chroma.bytes[pair],
                v: chroma.bytes[pair + 1])
            into[3 * x] = color.red
            into[3 * x + 1] = color.green
            into[3 * x + 2] = color.blue
            place.x += turn.step.x
            place.y += turn.step.y
        }
    }
}

/// The factors of a conversion from YCbCr, times 65536.
struct YCbCr: Equatable {
    let black: Int32
    let yFactor: Int32
    let redOfV: Int32
    let greenOfU: Int32
    let greenOfV: Int32
    let blueOfU: Int32

    /// `red` and `blue` are the weights of these colors in the luma (ITU-R BT.601 section 2.5.1 and its likes).
    init(red: Double, blue: Double, isFullRange: Bool) {
        let green = 1 - red - blue
        let chroma = isFullRange ? 65536 : 65536 * 255 / 224.0
        func factor(_ exact: Double) -> Int32 { Int32(((exact * 1e5).rounded() / 1e5 * chroma).rounded()) }
        black = isFullRange ? 0 : 16
        yFactor = isFullRange ? 65536 : Int32((65536 * 255 / 219.0).rounded())
        redOfV = factor(2 * (1 - red))
        greenOfU = factor(2 * (1 - blue) * blue / green)
        greenOfV = factor(2 * (1 - red) * red / green)
        blueOfU = factor(2 * (1 - blue))
    }

    /// Those of a buffer's matrix.
    static func of(_ buffer: CVPixelBuffer, isFullRange: Bool) throws -> YCbCr {
        guard let attached = CVBufferCopyAttachment(buffer, kCVImageBufferYCbCrMatrixKey, nil) else {
            return YCbCr(red: 0.299, blue: 0.114, isFullRange: isFullRange)
        }
        let matrix = attached as? NSString
        if matrix == kCVImageBufferYCbCrMatrix_ITU_R_601_4 as NSString {
            return YCbCr(red: 0.299, blue: 0.114, isFullRange: isFullRange)
        }
        if matrix == kCVImageBufferYCbCrMatrix_ITU_R_709_2 as NSString {
            return YCbCr(red: 0.2126, blue: 0.0722, isFullRange: isFullRange)
        }
        if matrix == kCVImageBufferYCbCrMatrix_ITU_R_2020 as NSString {
            return YCbCr(red: 0.2627, blue: 0.0593, isFullRange: isFullRange)
        }
        throw XFormerError.image(
            "the frame has the YCbCr matrix \(matrix ?? "of no name"); valid: ITU_R_601_4, ITU_R_709_2, ITU_R_2020")
    }

    func rgb(y: UInt8, u: UInt8, v: UInt8) -> (red: UInt8, green: UInt8, blue: UInt8) {
        let bright = (Int32(y) - black) * yFactor + 32768
        let u = Int32(u) - 128
        let v = Int32(v) - 128
        return (
            clip(bright + redOfV * v), clip(bright - greenOfU * u - greenOfV * v), clip(bright + blueOfU * u)
        )
    }

    private func clip(_ value: Int32) -> UInt8 { UInt8(truncatingIfNeeded: max(0, min(value >> 16, 255))) }
}
#endif
