import CoreGraphics
import CoreVideo
import Foundation
import XCTest
import XFormerCore

/// An image of bytes in any layout; rows may be padded.
func image(
    _ bytes: [UInt8], width: Int, height: Int, bits: Int = 8, bitsPerPixel: Int, bytesPerRow: Int? = nil,
    space: CGColorSpace? = CGColorSpace(name: CGColorSpace.sRGB), alpha: CGImageAlphaInfo = .none,
    order: CGImageByteOrderInfo = .orderDefault, info: CGBitmapInfo = []
) throws -> CGImage {
    try XCTUnwrap(
        CGImage(
            width: width, height: height, bitsPerComponent: bits, bitsPerPixel: bitsPerPixel,
            bytesPerRow: bytesPerRow ?? (width * bitsPerPixel + 7) / 8, space: XCTUnwrap(space),
            bitmapInfo: CGBitmapInfo(rawValue: alpha.rawValue | order.rawValue | info.rawValue),
            provider: XCTUnwrap(CGDataProvider(data: NSData(data: Data(bytes)) as CFData)), decode: nil,
            shouldInterpolate: false, intent: .defaultIntent))
}

/// A pixel buffer; `fill` is given each plane's index, start and bytes a row.
func pixelBuffer(
    _ format: OSType, width: Int, height: Int, matrix: CFString? = nil,
    fill: (Int, UnsafeMutablePointer<UInt8>, Int) -> Void
) throws -> CVPixelBuffer {
    var made: CVPixelBuffer?
    XCTAssertEqual(CVPixelBufferCreate(kCFAllocatorDefault, width, height, format, nil, &made), kCVReturnSuccess)
    let buffer = try XCTUnwrap(made)
    CVPixelBufferLockBaseAddress(buffer, [])
    if CVPixelBufferIsPlanar(buffer) {
        for plane in 0..<CVPixelBufferGetPlaneCount(buffer) {
            let start = try XCTUnwrap(CVPixelBufferGetBaseAddressOfPlane(buffer, plane))
            fill(plane, start.assumingMemoryBound(to: UInt8.self), CVPixelBufferGetBytesPerRowOfPlane(buffer, plane))
        }
    } else {
        let start = try XCTUnwrap(CVPixelBufferGetBaseAddress(buffer))
        fill(0, start.assumingMemoryBound(to: UInt8.self), CVPixelBufferGetBytesPerRow(buffer))
    }
    CVPixelBufferUnlockBaseAddress(buffer, [])
    if let matrix { CVBufferSetAttachment(buffer, kCVImageBufferYCbCrMatrixKey, matrix, .shouldPropagate) }
    return buffer
}

/// A buffer of a picture in BGRA.
func pixelBuffer(_ picture: RgbImage, alpha: UInt8 = 255) throws -> CVPixelBuffer {
    try pixelBuffer(kCVPixelFormatType_32BGRA, width: picture.width, height: picture.height) { _, start, bytesPerRow in
        for y in 0..<picture.height {
            for x in 0..<picture.width {
                let (from, to) = (3 * (y * picture.width + x), y * bytesPerRow + 4 * x)
                for channel in 0..<3 { start[to + 2 - channel] = picture.bytes[from + channel] }
                start[to + 3] = alpha
            }
        }
    }
}
