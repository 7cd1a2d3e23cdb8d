// A test double of Apple's Core Graphics: images, their layouts and color spaces, and a bitmap context that draws an
// image in its own size. Names and types are those of the iOS 18 SDK; colors are not managed.

import Foundation

@_exported import struct Foundation.CGFloat
@_exported import struct Foundation.CGPoint
@_exported import struct Foundation.CGRect
@_exported import struct Foundation.CGSize

public enum CGColorSpaceModel: Int32, Sendable {
    case unknown = -1
    case monochrome, rgb, cmyk, lab, deviceN, indexed, pattern, XYZ
}

public final class CGColorSpace: @unchecked Sendable {
    nonisolated(unsafe) public static let sRGB: CFString = "kCGColorSpaceSRGB"
    nonisolated(unsafe) public static let extendedSRGB: CFString = "kCGColorSpaceExtendedSRGB"
    nonisolated(unsafe) public static let displayP3: CFString = "kCGColorSpaceDisplayP3"
    nonisolated(unsafe) public static let genericGrayGamma2_2: CFString = "kCGColorSpaceGenericGrayGamma2_2"
    nonisolated(unsafe) public static let genericCMYK: CFString = "kCGColorSpaceGenericCMYK"

    public let name: CFString?
    public let model: CGColorSpaceModel
    public let baseColorSpace: CGColorSpace?
    public let colorTable: [UInt8]?

    public var numberOfComponents: Int {
        switch model {
        case .rgb, .lab, .XYZ: 3
        case .cmyk: 4
        default: 1
        }
    }

    public init?(name: CFString) {
        switch name {
        case CGColorSpace.sRGB, CGColorSpace.extendedSRGB, CGColorSpace.displayP3: model = .rgb
        case CGColorSpace.genericGrayGamma2_2: model = .monochrome
        case CGColorSpace.genericCMYK: model = .cmyk
        default: return nil
        }
        self.name = name
        baseColorSpace = nil
        colorTable = nil
    }

    public init?(indexedBaseSpace baseSpace: CGColorSpace, last: Int, colorTable: UnsafePointer<UInt8>) {
        guard (0...255).contains(last), baseSpace.model != .indexed else { return nil }
        name = nil
        model = .indexed
        baseColorSpace = baseSpace
        self.colorTable = Array(
            UnsafeBufferPointer(start: colorTable, count: (last + 1) * baseSpace.numberOfComponents))
    }
}

public enum CGImageAlphaInfo: UInt32, Sendable {
    case none, premultipliedLast, premultipliedFirst, last, first, noneSkipLast, noneSkipFirst, alphaOnly
}

public enum CGImageByteOrderInfo: UInt32, Sendable {
    case orderMask = 0x7000
    case orderDefault = 0
    case order16Little = 0x1000
    case order32Little = 0x2000
    case order16Big = 0x3000
    case order32Big = 0x4000
}

public enum CGImagePixelFormatInfo: UInt32, Sendable {
    case mask = 0xF0000
    case packed = 0
    case RGB555 = 0x10000
    case RGB565 = 0x20000
    case RGB101010 = 0x30000
    case RGBCIF10 = 0x40000
}

public struct CGBitmapInfo: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let alphaInfoMask = CGBitmapInfo(rawValue: 0x1F)
    public static let floatComponents = CGBitmapInfo(rawValue: 0x100)
    public static let byteOrderMask = CGBitmapInfo(rawValue: 0x7000)
    public static let byteOrder16Little = CGBitmapInfo(rawValue: 0x1000)
    public static let byteOrder32Little = CGBitmapInfo(rawValue: 0x2000)
    public static let byteOrder16Big = CGBitmapInfo(rawValue: 0x3000)
    public static let byteOrder32Big = CGBitmapInfo(rawValue: 0x4000)
}

public enum CGColorRenderingIntent: Int32, Sendable {
    case defaultIntent, absoluteColorimetric, relativeColorimetric, perceptual, saturation
}

public final class CGDataProvider: @unchecked Sendable {
    private let load: () -> CFData?

    public init?(data: CFData) { load = { data } }

    /// A provider that decodes when it is asked, as those of picture files do; nil is a failure to.
    public init(decoding load: @escaping () -> CFData?) { self.load = load }

    public var data: CFData? { load() }
}

public final class CGImage: @unchecked Sendable {
    public let width: Int
    public let height: Int
    public let bitsPerComponent: Int
    public let bitsPerPixel: Int
    public let bytesPerRow: Int
    public let colorSpace: CGColorSpace?
    public let bitmapInfo: CGBitmapInfo
    public let dataProvider: CGDataProvider?
    public let decode: UnsafePointer<CGFloat>?
    public let shouldInterpolate: Bool
    public let isMask: Bool

    public var alphaInfo: CGImageAlphaInfo { CGImageAlphaInfo(rawValue: bitmapInfo.rawValue & 0x1F) ?? .none }

    public var byteOrderInfo: CGImageByteOrderInfo {
        CGImageByteOrderInfo(rawValue: bitmapInfo.rawValue & 0x7000) ?? .orderDefault
    }

    public var pixelFormatInfo: CGImagePixelFormatInfo {
        CGImagePixelFormatInfo(rawValue: bitmapInfo.rawValue & 0xF0000) ?? .packed
    }

    public init?(
        width: Int, height: Int, bitsPerComponent: Int, bitsPerPixel: Int, bytesPerRow: Int, space: CGColorSpace,
        bitmapInfo: CGBitmapInfo, provider: CGDataProvider, decode: UnsafePointer<CGFloat>?, shouldInterpolate: Bool,
        intent: CGColorRenderingIntent
    ) {
        guard width > 0, height > 0, bytesPerRow >= (width * bitsPerPixel + 7) / 8 else { return nil }
        self.width = width
        self.height = height
        self.bitsPerComponent = bitsPerComponent
        self.bitsPerPixel = bitsPerPixel
        self.bytesPerRow = bytesPerRow
        colorSpace = space
        self.bitmapInfo = bitmapInfo
        dataProvider = provider
        self.decode = decode
        self.shouldInterpolate = shouldInterpolate
        isMask = false
    }

    public init?(
        maskWidth width: Int, height: Int, bitsPerComponent: Int, bitsPerPixel: Int, bytesPerRow: Int,
        provider: CGDataProvider, decode: UnsafePointer<CGFloat>?, shouldInterpolate: Bool
    ) {
        guard width > 0, height > 0 else { return nil }
        self.width = width
        self.height = height
        self.bitsPerComponent = bitsPerComponent
        self.bitsPerPixel = bitsPerPixel
        self.bytesPerRow = bytesPerRow
        colorSpace = nil
        bitmapInfo = []
        dataProvider = provider
        self.decode = decode
        self.shouldInterpolate = shouldInterpolate
        isMask = true
    }
}

extension CGImage {
    /// A part of the image, whose rows are as far apart as the image's: the data begins at its first pixel and ends at
    /// its last. Pixels must be of whole bytes.
    public func cropping(to rect: CGRect) -> CGImage? {
        let whole = CGRect(x: 0, y: 0, width: width, height: height)
        let part = rect.integral.intersection(whole)
        guard !part.isEmpty, let space = colorSpace, let data = dataProvider?.data else { return nil }
        let (x, y) = (Int(part.minX), Int(part.minY))
        let (columns, rows) = (Int(part.width), Int(part.height))
        let first = y * bytesPerRow + x * bitsPerPixel / 8
        let length = (rows - 1) * bytesPerRow + columns * bitsPerPixel / 8
        return CGDataProvider(data: data.subdata(with: NSRange(location: first, length: length)) as NSData).flatMap {
            CGImage(
                width: columns, height: rows, bitsPerComponent: bitsPerComponent, bitsPerPixel: bitsPerPixel,
                bytesPerRow: bytesPerRow, space: space, bitmapInfo: bitmapInfo, provider: $0, decode: decode,
                shouldInterpolate: shouldInterpolate, intent: .defaultIntent)
        }
    }
}

public enum CGBlendMode: Int32, Sendable {
    case normal = 0
    case copy = 17
}

public enum CGInterpolationQuality: Int32, Sendable {
    case `default`, none, low, high
    case medium = 4
}

/// A bitmap of red, green, blue, alpha, premultiplied. It draws images of floats and of CMYK.
public final class CGContext {
    public let width: Int
    public let height: Int
    public let bytesPerRow: Int
    public private(set) var data: UnsafeMutableRawPointer?
    public var interpolationQuality: CGInterpolationQuality = .default
    private var mode: CGBlendMode = .normal

    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: UInt32
    ) {
        let supported = CGImageAlphaInfo.premultipliedLast.rawValue | CGImageByteOrderInfo.order32Big.rawValue
        guard data == nil, width > 0, height > 0, bitsPerComponent == 8, bytesPerRow == 0, space.model == .rgb,
            bitmapInfo == supported
        else { return nil }
        self.width = width
        self.height = height
        self.bytesPerRow = (4 * width + 31) / 32 * 32
        self.data = calloc(height, self.bytesPerRow)
    }

    deinit { free(data) }

    public func setBlendMode(_ mode: CGBlendMode) { self.mode = mode }

    public func draw(_ image: CGImage, in rect: CGRect) {
        precondition(rect == CGRect(x: 0, y: 0, width: width, height: height), "this double draws whole images only")
        precondition(image.width == width && image.height == height, "this double does not scale")
        guard let data, let stored = image.dataProvider?.data else { return }
        for y in 0..<height {
            for x in 0..<width {
                let place = stored.bytes.advanced(by: y * image.bytesPerRow + x * image.bitsPerPixel / 8)
                let into = data.advanced(by: y * bytesPerRow + 4 * x).assumingMemoryBound(to: UInt8.self)
                let (color, alpha) = Self.read(place, image)
                for channel in 0..<3 { into[channel] = UInt8((max(0, min(color[channel], 1)) * alpha * 255).rounded()) }
                into[3] = UInt8((alpha * 255).rounded())
            }
        }
    }

    /// Red, green, blue, not premultiplied, and alpha; 1 is the most that can be shown.
    private static func read(_ place: UnsafeRawPointer, _ image: CGImage) -> ([Float], Float) {
        switch image.colorSpace?.model {
        case .cmyk:
            let ink = (0..<4).map { Float(place.loadUnaligned(fromByteOffset: $0, as: UInt8.self)) / 255 }
            return (ink[..<3].map { (1 - $0) * (1 - ink[3]) }, 1)
        case .rgb where image.bitmapInfo.contains(.floatComponents) && image.bitsPerComponent == 32:
            let count = image.bitsPerPixel / 32
            let samples = (0..<count).map { place.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
            return (Array(samples[..<3]), samples.count > 3 ? samples[3] : 1)
        default:
            preconditionFailure("this double does not draw such an image")
        }
    }
}
