import Foundation

public enum MLMultiArrayDataType: Int, Sendable {
    case double = 0x10040
    case float32 = 0x10020
    case float16 = 0x10010
    case int32 = 0x20020

    var bytes: Int { (rawValue & 0xFF) / 8 }
}

/// Values with strides; those between and behind them are NaN, so that code which ignores the strides finds them.
public final class MLMultiArray: NSObject {
    public let shape: [NSNumber]
    public let strides: [NSNumber]
    public let dataType: MLMultiArrayDataType
    private let storage: UnsafeMutableRawBufferPointer

    /// An array of float32 values, row-major, stored in `dataType`: each value `spacing` places behind the one before,
    /// with `padding` more places at the end of each row. Not of Apple's: there, Core ML makes such arrays.
    public init(
        shape: [Int], values: [Float], dataType: MLMultiArrayDataType, padding: Int = 0, spacing: Int = 1
    ) {
        var strides = [Int](repeating: spacing, count: shape.count)
        for axis in shape.indices.dropLast().reversed() {
            strides[axis] = strides[axis + 1] * shape[axis + 1] + (axis == shape.count - 2 ? padding : 0)
        }
        self.shape = shape.map { NSNumber(value: $0) }
        self.strides = strides.map { NSNumber(value: $0) }
        self.dataType = dataType
        let places = (strides.first ?? 1) * (shape.first ?? 1) + padding
        storage = .allocate(byteCount: places * dataType.bytes, alignment: 64)
        super.init()
        for place in 0..<places { store(.nan, at: place) }
        for (index, value) in values.enumerated() {
            var (rest, place) = (index, 0)
            for axis in shape.indices.reversed() {
                place += rest % shape[axis] * strides[axis]
                rest /= shape[axis]
            }
            store(value, at: place)
        }
    }

    private func store(_ value: Float, at place: Int) {
        let offset = place * dataType.bytes
        switch dataType {
        case .float32: storage.storeBytes(of: value, toByteOffset: offset, as: Float.self)
        case .float16: storage.storeBytes(of: Float16(value), toByteOffset: offset, as: Float16.self)
        case .double: storage.storeBytes(of: Double(value), toByteOffset: offset, as: Double.self)
        case .int32: storage.storeBytes(of: value.isNaN ? -1 : Int32(value), toByteOffset: offset, as: Int32.self)
        }
    }

    deinit { storage.deallocate() }

    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try body(UnsafeRawBufferPointer(storage))
    }
}
