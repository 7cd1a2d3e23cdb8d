/// What a model does with a picture.
public enum ModelTask: String, Codable, Sendable, CaseIterable {
    /// One class for the picture.
    case classify

    /// Boxes with a class each.
    case detect

    /// A class for each pixel.
    case segment
}

/// How a picture is fitted to the input, see ``Fit``.
public enum ResizeRule: String, Codable, Sendable, CaseIterable {
    /// Stretched to the input's size.
    case resize

    /// Inside the input, its shape kept, padded with grey.
    case letterbox

    /// Covers 9/8 of the input, its shape kept, and the middle cut out.
    case resizeShorterCenterCrop = "resize_shorter_center_crop"
}

/// What an artifact is.
public enum ArtifactFormat: String, Codable, Sendable, CaseIterable {
    /// A model.onnx.
    case onnx

    /// ONNX Runtime's own: a model.ort.
    case ort

    /// A model.tflite.
    case tflite

    /// A model.mlpackage: a directory, unlike the others.
    case coreml

    /// A model.pte.
    case executorch
}

/// Height and width of a model's input in pixels.
public struct ImageSize: Sendable, Hashable, CustomStringConvertible {
    /// In pixels.
    public let height: Int

    /// In pixels.
    public let width: Int

    static let stride = 64
    static let maxSide = 4096

    /// A size whose sides are multiples of 64, from 64 to 4096.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` for any other side.
    public init(height: Int, width: Int) throws {
        guard Self.isSide(height), Self.isSide(width) else {
            throw XFormerError.usage(
                "image size \(height)x\(width) is not valid: both sides must be multiples of \(Self.stride), "
                    + "from \(Self.stride) to \(Self.maxSide)")
        }
        self.height = height
        self.width = width
    }

    static func isSide(_ side: Int) -> Bool { (stride...maxSide).contains(side) && side % stride == 0 }

    /// Height x width, such as "320x512".
    public var description: String { "\(height)x\(width)" }
}

/// Width and height in pixels.
public struct PixelSize: Sendable, Hashable {
    /// In pixels.
    public let width: Int

    /// In pixels.
    public let height: Int

    /// Any size; whoever takes one checks it.
    public init(width: Int, height: Int) {
        self.width = width
        self.height = height
    }
}

/// A place in pixels: `x` goes right, `y` down.
public struct PixelPoint: Sendable, Hashable {
    /// In pixels, to the right.
    public let x: Int

    /// In pixels, down.
    public let y: Int

    /// Any place; whoever takes one checks it.
    public init(x: Int, y: Int) {
        self.x = x
        self.y = y
    }
}

/// A color.
public struct Rgb: Sendable, Hashable {
    /// 0..255.
    public let red: UInt8

    /// 0..255.
    public let green: UInt8

    /// 0..255.
    public let blue: UInt8

    /// A color of three parts, 0..255 each.
    public init(red: UInt8, green: UInt8, blue: UInt8) {
        self.red = red
        self.green = green
        self.blue = blue
    }
}

/// The package itself.
public enum XFormerKit {
    /// The version of this library.
    public static let version = "0.1.0"
}
