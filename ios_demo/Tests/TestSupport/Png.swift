import Foundation
import XFormerCore

#if canImport(CPng)
import CPng

/// The pixels of an 8-bit RGB PNG without a color profile, as they are stored.
///
/// - Throws: ``XFormerError/image(_:)`` when it is no such picture.
public let decodePng: PictureDecoder = { content in
    var png = png_image()
    png.version = png_uint_32(PNG_IMAGE_VERSION)
    defer { png_image_free(&png) }
    return try content.withUnsafeBytes { stored in
        guard png_image_begin_read_from_memory(&png, stored.baseAddress, stored.count) != 0 else {
            throw XFormerError.image("it is no PNG")
        }
        guard png.format == png_uint_32(PNG_FORMAT_FLAG_COLOR) else {
            throw XFormerError.image("it is no PNG of 8 bits and RGB")
        }
        guard Int(png.width) * Int(png.height) <= 1 << 26 else { throw XFormerError.image("it is a huge PNG") }
        var bytes = [UInt8](repeating: 0, count: 3 * Int(png.width) * Int(png.height))
        guard png_image_finish_read(&png, nil, &bytes, 0, nil) != 0 else {
            throw XFormerError.image("it is a broken PNG")
        }
        return try RgbImage(width: Int(png.width), height: Int(png.height), bytes: bytes)
    }
}
#elseif canImport(ImageIO)
import CoreGraphics
import ImageIO

/// The pixels of an 8-bit RGB PNG without a color profile, as they are stored.
///
/// - Throws: ``XFormerError/image(_:)`` when it is no such picture.
public let decodePng: PictureDecoder = { content in
    guard let source = CGImageSourceCreateWithData(content as CFData, nil),
        let picture = CGImageSourceCreateImageAtIndex(source, 0, nil)
    else { throw XFormerError.image("it is no picture") }
    let bytesPerPixel = picture.bitsPerPixel / 8
    guard picture.bitsPerComponent == 8, bytesPerPixel >= 3, let stored = picture.dataProvider?.data as Data? else {
        throw XFormerError.image("it is no picture of 8 bits and RGB")
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(3 * picture.width * picture.height)
    for y in 0..<picture.height {
        for x in 0..<picture.width {
            let place = stored.startIndex + y * picture.bytesPerRow + x * bytesPerPixel
            bytes += stored[place..<place + 3]
        }
    }
    return try RgbImage(width: picture.width, height: picture.height, bytes: bytes)
}
#endif
