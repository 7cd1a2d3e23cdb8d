import Foundation

/// A picture that is read row by row, so that a large one need not lie in memory as RGB.
public protocol RowSource {
    /// In pixels.
    var width: Int { get }

    /// In pixels.
    var height: Int { get }

    /// Writes row `y` to the first 3 * ``width`` bytes of `into`: red, green, blue, 0..255.
    ///
    /// `into` holds at least so many bytes. ``Preprocess/preprocess(_:target:rule:)`` asks for rows from the top down,
    /// for each at most once, and leaves out those that are cropped.
    func row(_ y: Int, into: UnsafeMutableBufferPointer<UInt8>) throws
}

/// A picture as bytes: rows from the top, red, green, blue, 0..255, 3 * `width` * `height` in all.
public struct RgbImage: RowSource, Sendable, Equatable {
    /// In pixels.
    public let width: Int

    /// In pixels.
    public let height: Int

    /// Row-major, `uint8[height, width, 3]`.
    public let bytes: [UInt8]

    /// The largest picture that is taken, as in the Python code.
    static let maxPixels = 178_956_970

    /// A picture of bytes.
    ///
    /// - Throws: ``XFormerError/image(_:)`` when the sides are not positive, there are more than 178,956,970 pixels, or
    ///   `bytes` has another size.
    public init(width: Int, height: Int, bytes: [UInt8]) throws {
        try Self.checkPixels(width: width, height: height)
        guard bytes.count == 3 * width * height else {
            throw XFormerError.image(
                "got \(bytes.count) bytes for a picture of \(width)x\(height); RGB takes \(3 * width * height)")
        }
        self.width = width
        self.height = height
        self.bytes = bytes
    }

    /// A picture whose bytes are as many as its size takes.
    init(checked size: PixelSize, bytes: [UInt8]) {
        width = size.width
        height = size.height
        self.bytes = bytes
    }

    /// Copies a row.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when there is no such row, or `into` is too small for it.
    public func row(_ y: Int, into: UnsafeMutableBufferPointer<UInt8>) throws {
        guard (0..<height).contains(y), into.count >= 3 * width else {
            throw XFormerError.usage(
                "can't write row \(y) of a picture of \(width)x\(height) to \(into.count) bytes; "
                    + "valid: rows 0 to \(height - 1), \(3 * width) bytes")
        }
        let row = bytes[3 * width * y..<3 * width * (y + 1)]
        _ = into.update(fromContentsOf: row)
    }

    /// Throws ``XFormerError/image(_:)`` for a picture without pixels or with too many. Takes any numbers.
    static func checkPixels(width: Int, height: Int) throws {
        guard width >= 1, height >= 1 else {
            throw XFormerError.image("a picture of \(width)x\(height) has no pixels")
        }
        let (pixels, overflow) = width.multipliedReportingOverflow(by: height)
        if overflow || pixels > maxPixels {
            throw XFormerError.image(
                "a picture of \(width)x\(height) has more than \(maxPixels) pixels; scale it down first")
        }
    }
}

/// Makes a picture of a PNG file's bytes: 8-bit RGB, no color conversion, no scaling. Throws ``XFormerError/image(_:)``
/// when they are no picture.
public typealias PictureDecoder = @Sendable (Data) throws -> RgbImage
