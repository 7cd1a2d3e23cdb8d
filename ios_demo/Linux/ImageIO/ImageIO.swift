// A test double of Apple's Image I/O: PNG files, decoded to what they store. Names and types are those of the iOS 18
// SDK. What layouts Apple's decoders choose is theirs; XFormerCoreML takes any.

import CRawPng
import CoreGraphics
import Foundation

@_exported import CoreGraphics

public enum CGImagePropertyOrientation: UInt32, Sendable {
    case up = 1
    case upMirrored, down, downMirrored, leftMirrored, right, rightMirrored, left
}

public enum CGImageSourceStatus: Int32, Sendable {
    case statusUnexpectedEOF = -5
    case statusInvalidData, statusUnknownType, statusReadingHeader, statusIncomplete, statusComplete
}

nonisolated(unsafe) public let kCGImagePropertyPixelWidth: CFString = "PixelWidth"
nonisolated(unsafe) public let kCGImagePropertyPixelHeight: CFString = "PixelHeight"
nonisolated(unsafe) public let kCGImagePropertyOrientation: CFString = "Orientation"
nonisolated(unsafe) public let kCGImageSourceShouldCache: CFString = "kCGImageSourceShouldCache"
nonisolated(unsafe) public let kCGImageSourceSubsampleFactor: CFString = "kCGImageSourceSubsampleFactor"

public final class CGImageSource {
    let content: Data
    var status = CGImageSourceStatus.statusComplete

    init(content: Data) { self.content = content }

    func read<Result>(headerOnly: Bool, _ body: (inout raw_png) -> Result?) -> Result? {
        var png = raw_png()
        defer { raw_png_free(&png) }
        let isPicture = content.withUnsafeBytes { bytes in
            raw_png_read(bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count, headerOnly ? 1 : 0, &png)
        }
        return isPicture == 0 ? nil : body(&png)
    }
}

public func CGImageSourceCreateWithData(_ data: CFData, _ options: CFDictionary?) -> CGImageSource? {
    data.length == 0 ? nil : CGImageSource(content: Data(referencing: data))
}

public func CGImageSourceCreateWithURL(_ url: CFURL, _ options: CFDictionary?) -> CGImageSource? {
    NSData(contentsOfFile: url.path ?? "").flatMap { CGImageSourceCreateWithData($0, options) }
}

public func CGImageSourceGetCount(_ isrc: CGImageSource) -> Int { isrc.read(headerOnly: true) { _ in 1 } ?? 0 }

public func CGImageSourceGetPrimaryImageIndex(_ isrc: CGImageSource) -> Int { 0 }

public func CGImageSourceGetStatusAtIndex(_ isrc: CGImageSource, _ index: Int) -> CGImageSourceStatus { isrc.status }

public func CGImageSourceCopyPropertiesAtIndex(
    _ isrc: CGImageSource, _ index: Int, _ options: CFDictionary?
) -> CFDictionary? {
    isrc.read(headerOnly: true) { png in
        let properties = NSMutableDictionary()
        properties[kCGImagePropertyPixelWidth] = NSNumber(value: png.width)
        properties[kCGImagePropertyPixelHeight] = NSNumber(value: png.height)
        if png.orientation > 0 { properties[kCGImagePropertyOrientation] = NSNumber(value: png.orientation) }
        return properties
    }
}

public func CGImageSourceCreateImageAtIndex(
    _ isrc: CGImageSource, _ index: Int, _ options: CFDictionary?
) -> CGImage? {
    isrc.read(headerOnly: false) { png in
        if png.is_truncated != 0 { isrc.status = .statusUnexpectedEOF }
        let factor = (options?[kCGImageSourceSubsampleFactor] as? NSNumber)?.intValue ?? 1
        return image(of: png, every: factor)
    }
}

/// The picture of a file, or every n-th pixel of it where a pixel is made of whole bytes.
private func image(of png: raw_png, every step: Int) -> CGImage? {
    guard let pixels = png.pixels else { return nil }
    let grey = CGColorSpace(name: CGColorSpace.genericGrayGamma2_2)
    let color = CGColorSpace(name: CGColorSpace.sRGB)
    let samples: Int
    let space: CGColorSpace?
    switch png.color_type {
    case 0: (samples, space) = (1, grey)
    case 2: (samples, space) = (3, color)
    case 3:
        let table = withUnsafeBytes(of: png.palette) { Array($0) }
        samples = 1
        space = color.flatMap {
            CGColorSpace(indexedBaseSpace: $0, last: Int(png.palette_count) - 1, colorTable: table)
        }
    case 4: (samples, space) = (2, grey)
    default: (samples, space) = (4, color)
    }
    guard let space else { return nil }
    let depth = Int(png.bit_depth)
    let alpha: CGImageAlphaInfo = png.color_type & 4 == 0 ? .none : .last
    var info = CGBitmapInfo(rawValue: alpha.rawValue)
    if depth == 16 { info.insert(.byteOrder16Little) }
    let data = NSMutableData(bytes: pixels, length: png.row_bytes * Int(png.height))
    var (width, height, bytesPerRow) = (Int(png.width), Int(png.height), png.row_bytes)
    let bytesPerPixel = samples * depth / 8
    if step > 1, bytesPerPixel > 0 {
        let (across, down) = ((width - 1) / step + 1, (height - 1) / step + 1)
        for y in 0..<down {
            for x in 0..<across {
                memmove(
                    data.mutableBytes.advanced(by: (y * across + x) * bytesPerPixel),
                    data.bytes.advanced(by: step * y * bytesPerRow + step * x * bytesPerPixel), bytesPerPixel)
            }
        }
        (width, height, bytesPerRow) = (across, down, across * bytesPerPixel)
    }
    guard let provider = CGDataProvider(data: data) else { return nil }
    return CGImage(
        width: width, height: height, bitsPerComponent: depth, bitsPerPixel: samples * depth,
        bytesPerRow: bytesPerRow, space: space, bitmapInfo: info, provider: provider, decode: nil,
        shouldInterpolate: true, intent: .defaultIntent)
}
