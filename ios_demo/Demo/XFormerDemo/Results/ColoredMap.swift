import CoreGraphics
import Foundation
import XFormerCore

/// A class map in colors, small enough to be drawn over its picture.
struct ColoredMap: Sendable, Equatable {
    /// The longer side is not above this.
    static let mostSide = 1024

    /// So much of 255 hides the picture.
    private static let alpha: UInt8 = 144

    /// In pixels.
    let width: Int

    /// In pixels.
    let height: Int

    /// `uint8[height, width, 4]`, rows from the top: red, green, blue, alpha; not premultiplied.
    let rgba: [UInt8]

    /// Every n-th pixel of `map` in each direction, with n as small as ``mostSide`` allows.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when there are fewer colors than classes.
    init(_ map: ClassMap, palette: [Rgb]) throws {
        let step = (max(map.width, map.height) + Self.mostSide - 1) / Self.mostSide
        let (width, height) = ((map.width + step - 1) / step, (map.height + step - 1) / step)
        var classes: [UInt16] = []
        classes.reserveCapacity(width * height)
        for y in 0..<height {
            for x in 0..<width { classes.append(map.classes[y * step * map.width + x * step]) }
        }
        let small = try ClassMap(width: width, height: height, classes: classes, labels: map.labels)
        self.width = width
        self.height = height
        rgba = try small.rgba(palette: palette, alpha: Self.alpha)
    }

    /// As a picture in sRGB; nil where there is no memory for it.
    func image() -> CGImage? {
        guard let space = CGColorSpace(name: CGColorSpace.sRGB),
            let provider = CGDataProvider(data: NSData(data: Data(rgba)) as CFData)
        else { return nil }
        return CGImage(
            width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 32, bytesPerRow: 4 * width, space: space,
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.last.rawValue), provider: provider, decode: nil,
            shouldInterpolate: true, intent: .defaultIntent)
    }
}
