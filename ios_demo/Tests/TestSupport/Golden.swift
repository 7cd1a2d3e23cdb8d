import Foundation
import XFormerCore

/// A folder of tests/golden, which the Python and Kotlin tests read too.
public struct Golden: Sendable {
    /// The folder of all of them.
    public static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent()  // TestSupport
        .deletingLastPathComponent()  // Tests
        .deletingLastPathComponent()  // ios_demo
        .deletingLastPathComponent()
        .appendingPathComponent("tests/golden")

    private let directory: URL

    /// "preprocess" or "postprocess".
    public init(_ folder: String) {
        directory = Self.root.appendingPathComponent(folder)
    }

    /// A JSON document.
    public func document<Document: Decodable>(_ type: Document.Type, _ name: String) throws -> Document {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(type, from: data(name))
    }

    /// A file's content.
    public func data(_ name: String) throws -> Data {
        try Data(contentsOf: directory.appendingPathComponent(name))
    }

    /// A file's bytes.
    public func bytes(_ name: String) throws -> [UInt8] { [UInt8](try data(name)) }

    /// A file's little-endian float32 values.
    public func floats(_ name: String) throws -> [Float] { try data(name).littleEndianFloats }
}

extension Data {
    /// Little-endian float32 values.
    public var littleEndianFloats: [Float] {
        withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map { place in
                Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * place, as: UInt32.self)))
            }
        }
    }

    /// Values as little-endian float32.
    public init(littleEndian values: [Float]) {
        self.init()
        for value in values { Swift.withUnsafeBytes(of: value.bitPattern.littleEndian) { append(contentsOf: $0) } }
    }
}

/// Pairs as golden documents hold them.
extension PixelSize {
    /// `[width, height]`.
    public init(pair: [Int]) {
        self.init(width: pair[0], height: pair[1])
    }
}

extension PixelPoint {
    /// `[x, y]`.
    public init(pair: [Int]) {
        self.init(x: pair[0], y: pair[1])
    }
}

extension ImageSize {
    /// `[height, width]`.
    public init(pair: [Int]) throws {
        try self.init(height: pair[0], width: pair[1])
    }
}
