#if canImport(CoreML)
import CoreGraphics
import Foundation
import ImageIO
import XFormerCore

/// Images and picture files as the RGB rows that preprocessing takes.
///
/// **Numbers, not colors.** The bytes of an image are taken as it stores them: a color profile is ignored, alpha is
/// dropped without blending, as training does it (docs/preprocessing.md, section 1). A photograph in Display P3 gives
/// its P3 numbers. Of premultiplied pixels alpha is divided out again, which loses bits: the lower alpha is, the fewer
/// levels are left. What is in no layout that can be read so (floats, 10 bits, CMYK, ...) is drawn by Core Graphics in
/// sRGB; colors beyond sRGB are clipped, and the result is the platform's, not exact.
///
/// **Memory.** An image that was decoded lazily is decoded once, to the bytes of its own layout: 12,000 x 9,000 pixels
/// take 324 MB as RGB, 432 MB with alpha. Nothing else of its size is made.
public enum Pictures {
    /// The largest picture that is taken, in pixels; the same limit as in the Python code.
    public static let maxPixels = 178_956_970

    /// Decodes a bundle's golden pictures: PNG, 8 bits, RGB, to exactly the bytes in the file.
    public static let decoder: PictureDecoder = { content in
        try decode(content).rgb()
    }

    /// The rows of an image, upright by the orientation that its file or camera gave.
    ///
    /// - Throws: ``XFormerCore/XFormerError/image(_:)`` for more than ``maxPixels`` pixels, a mask, or an image that
    ///   can't be decoded.
    public static func rows(_ image: CGImage, orientation: CGImagePropertyOrientation = .up) throws -> ImageRows {
        try ImageRows(image, orientation: orientation)
    }

    /// An image as upright RGB bytes; see ``rows(_:orientation:)``.
    public static func rgb(_ image: CGImage, orientation: CGImagePropertyOrientation = .up) throws -> RgbImage {
        try rows(image, orientation: orientation).rgb()
    }

    /// Decodes a picture file's content: JPEG, PNG, HEIC, and what else the system has a decoder for. Of an animation,
    /// the first frame.
    ///
    /// A picture of more than `maxPixels` is refused; with `subsample` it is decoded at a half, a quarter or an eighth
    /// of its size instead, so that it fits, which changes the pixels. Results are then in the smaller picture's pixels.
    ///
    /// - Throws: ``XFormerCore/XFormerError/image(_:)`` for a content that is no picture, broken, truncated or too
    ///   large; ``XFormerCore/XFormerError/usage(_:)`` for a limit that is not from 1 to ``maxPixels``.
    public static func decode(
        _ content: Data, maxPixels: Int = Pictures.maxPixels, subsample: Bool = false
    ) throws -> Picture {
        let name = "of \(content.count) bytes"
        guard let source = CGImageSourceCreateWithData(NSData(data: content) as CFData, nil) else {
            throw unusable(name, unknown)
        }
        return try decode(source, name: name, maxPixels: maxPixels, subsample: subsample)
    }

    /// Decodes a picture file; see ``decode(_:maxPixels:subsample:)``.
    public static func decode(
        _ file: URL, maxPixels: Int = Pictures.maxPixels, subsample: Bool = false
    ) throws -> Picture {
        let name = file.lastPathComponent
        guard (try? file.checkResourceIsReachable()) == true,
            let source = CGImageSourceCreateWithURL(NSURL(fileURLWithPath: file.path) as CFURL, nil)
        else { throw XFormerError.image("can't read picture \(name): it is missing, or may not be read") }
        return try decode(source, name: name, maxPixels: maxPixels, subsample: subsample)
    }

    /// An image to show: sRGB, opaque, the picture's own bytes.
    ///
    /// - Throws: ``XFormerCore/XFormerError/image(_:)`` when the memory is not enough.
    public static func cgImage(_ image: RgbImage) throws -> CGImage {
        guard let space = CGColorSpace(name: CGColorSpace.sRGB),
            let provider = CGDataProvider(data: NSData(data: Data(image.bytes)) as CFData),
            let made = CGImage(
                width: image.width, height: image.height, bitsPerComponent: 8, bitsPerPixel: 24,
                bytesPerRow: 3 * image.width, space: space,
                bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider, decode: nil,
                shouldInterpolate: true, intent: .defaultIntent)
        else {
            throw XFormerError.image("the \(image.width)x\(image.height) pixels of the picture don't fit the memory")
        }
        return made
    }

    private static let unknown = "it is broken, or in no format that this device decodes"

    private static func unusable(_ name: String, _ why: String) -> XFormerError {
        .image("can't use picture \(name): \(why)")
    }

    private static func decode(
        _ source: CGImageSource, name: String, maxPixels: Int, subsample: Bool
    ) throws -> Picture {
        guard (1...Pictures.maxPixels).contains(maxPixels) else {
            throw XFormerError.usage("a limit of \(maxPixels) pixels is not valid; valid: 1 to \(Pictures.maxPixels)")
        }
        guard CGImageSourceGetCount(source) > 0 else { throw unusable(name, unknown) }
        let index = CGImageSourceGetPrimaryImageIndex(source)
        guard let stated = CGImageSourceCopyPropertiesAtIndex(source, index, nil) else { throw unusable(name, unknown) }
        let properties = stated as NSDictionary
        func number(_ key: CFString) -> Int? { (properties[key as NSString] as? NSNumber)?.intValue }
        guard let width = number(kCGImagePropertyPixelWidth), let height = number(kCGImagePropertyPixelHeight),
            width >= 1, height >= 1
        else { throw unusable(name, unknown) }
        let factor = factor(width: width, height: height, maxPixels: maxPixels)
        guard factor == 1 || subsample && factor <= 8 else {
            throw unusable(name, "it has \(width)x\(height) pixels, more than \(maxPixels); scale it down first")
        }
        // The decoded pixels are copied once and then kept: nothing is gained by a second copy in ImageIO's cache.
        let options = NSMutableDictionary(object: NSNumber(value: false), forKey: kCGImageSourceShouldCache as NSString)
        if factor > 1 { options[kCGImageSourceSubsampleFactor as NSString] = NSNumber(value: factor) }
        guard let image = CGImageSourceCreateImageAtIndex(source, index, options as CFDictionary) else {
            throw unusable(name, unknown)
        }
        switch CGImageSourceGetStatusAtIndex(source, index) {
        case .statusIncomplete, .statusUnexpectedEOF, .statusInvalidData:
            throw unusable(name, "it is truncated or broken")
        default: break
        }
        guard image.width <= maxPixels / image.height else {
            throw unusable(name, "it has \(width)x\(height) pixels and can't be decoded smaller; scale it down first")
        }
        let orientation = number(kCGImagePropertyOrientation).flatMap { UInt32(exactly: $0) }
        return Picture(image: image, orientation: orientation.flatMap(CGImagePropertyOrientation.init) ?? .up)
    }

    /// By which power of two a picture must be decoded smaller so that it has at most `maxPixels`.
    static func factor(width: Int, height: Int, maxPixels: Int) -> Int {
        var factor = 1
        while factor < 1 << 30, (width - 1) / factor + 1 > maxPixels / ((height - 1) / factor + 1) { factor *= 2 }
        return factor
    }
}

/// A decoded picture file: the image as the file has it, and how it is turned. Pixels may be decoded only when its rows
/// are asked for.
public struct Picture: Sendable {
    /// As stored.
    public let image: CGImage

    /// What makes it upright.
    public let orientation: CGImagePropertyOrientation

    /// Of the upright picture.
    public var size: PixelSize {
        let turn = Turn(orientation: orientation.rawValue, width: image.width, height: image.height)
        return PixelSize(width: turn.width, height: turn.height)
    }

    /// All of it as upright bytes.
    ///
    /// - Throws: as ``Pictures/rows(_:orientation:)``.
    public func rgb() throws -> RgbImage { try Pictures.rgb(image, orientation: orientation) }
}

/// Upright rows of an image. Holds the image's decoded bytes; may be read from one thread at a time.
public struct ImageRows: RowSource {
    public var width: Int { turn.width }
    public var height: Int { turn.height }

    private let turn: Turn
    private let layout: PixelLayout
    private let bytesPerRow: Int
    private let pixels: Pixels

    /// What keeps the bytes.
    private enum Pixels {
        case stored(NSData)
        case drawn(CGContext)
    }

    init(_ image: CGImage, orientation: CGImagePropertyOrientation) throws {
        let size = "\(image.width)x\(image.height)"
        guard image.width >= 1, image.height >= 1 else { throw XFormerError.image("an image of \(size) has no pixels") }
        guard image.width <= Pictures.maxPixels / image.height else {
            throw XFormerError.image(
                "an image of \(size) has more than \(Pictures.maxPixels) pixels; scale it down first")
        }
        guard !image.isMask, image.alphaInfo != .alphaOnly else {
            throw XFormerError.image("an image mask has no colors; give an image")
        }
        turn = Turn(orientation: orientation.rawValue, width: image.width, height: image.height)
        if let layout = PixelLayout.of(image) {
            // Decodes the image where that has not been done yet.
            guard let data = image.dataProvider?.data else {
                throw XFormerError.image(
                    "the image of \(size) can't be decoded: it is broken, or the memory is not enough")
            }
            let needed = (image.height - 1) * image.bytesPerRow + layout.rowBytes(width: image.width)
            guard image.bytesPerRow >= layout.rowBytes(width: image.width), (data as NSData).length >= needed else {
                throw XFormerError.image(
                    "the image of \(size) has \((data as NSData).length) bytes; it needs \(needed)")
            }
            self.layout = layout
            bytesPerRow = image.bytesPerRow
            pixels = .stored(data as NSData)
        } else {
            let drawn = try Self.draw(image)
            layout = PixelLayout(
                kind: .color(red: 0, green: 1, blue: 2, alpha: 3), bitsPerSample: 8, bytesPerPixel: 4,
                isLittleEndian: false)
            bytesPerRow = drawn.bytesPerRow
            pixels = .drawn(drawn)
        }
    }

    /// The image in sRGB, premultiplied, by Core Graphics.
    private static func draw(_ image: CGImage) throws -> CGContext {
        let info = CGImageAlphaInfo.premultipliedLast.rawValue | CGImageByteOrderInfo.order32Big.rawValue
        guard let space = CGColorSpace(name: CGColorSpace.sRGB),
            let context = CGContext(
                data: nil, width: image.width, height: image.height, bitsPerComponent: 8, bytesPerRow: 0, space: space,
                bitmapInfo: info)
        else {
            throw XFormerError.image("the \(image.width)x\(image.height) pixels of the image don't fit the memory")
        }
        context.interpolationQuality = .none
        context.setBlendMode(.copy)
        context.draw(image, in: CGRect(x: 0, y: 0, width: image.width, height: image.height))
        return context
    }

    /// Writes an upright row.
    ///
    /// - Throws: ``XFormerCore/XFormerError/usage(_:)`` when there is no such row, or `into` is too small for it.
    public func row(_ y: Int, into: UnsafeMutableBufferPointer<UInt8>) throws {
        guard (0..<height).contains(y), into.count >= 3 * width else {
            throw XFormerError.usage(
                "can't write row \(y) of a picture of \(width)x\(height) to \(into.count) bytes; "
                    + "valid: rows 0 to \(height - 1), \(3 * width) bytes")
        }
        let start: UnsafeRawPointer? =
            switch pixels {
            case .stored(let data): data.bytes
            case .drawn(let context): context.data.map { UnsafeRawPointer($0) }
            }
        guard let start else { throw XFormerError.image("the image's memory is gone; decode it again") }
        let bytes = start.assumingMemoryBound(to: UInt8.self)
        layout.row(y, of: bytes, bytesPerRow: bytesPerRow, turn: turn, into: into)
    }
}

extension RowSource {
    /// All rows.
    func rgb() throws -> RgbImage {
        let (across, total) = (3 * width, 3 * width * height)
        let bytes = try [UInt8](unsafeUninitializedCapacity: total) { buffer, count in
            for y in 0..<height {
                try row(y, into: UnsafeMutableBufferPointer(rebasing: buffer[y * across..<(y + 1) * across]))
            }
            count = total
        }
        return try RgbImage(width: width, height: height, bytes: bytes)
    }
}
#endif
