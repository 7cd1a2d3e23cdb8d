/// Float32 values of a shape, row-major.
public struct Tensor: Sendable, Equatable {
    /// Every side is at least 1.
    public let shape: [Int]

    /// As many as the shape has places.
    public let values: [Float]

    /// Values of a shape.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when `shape` and `values` do not fit each other.
    public init(shape: [Int], values: [Float]) throws {
        guard volume(of: shape) == values.count else {
            throw XFormerError.usage("got \(values.count) values for a tensor of \(describe(shape))")
        }
        self.shape = shape
        self.values = values
    }

    /// Whether no value is NaN or infinite.
    public var isFinite: Bool { values.allSatisfy(\.isFinite) }
}

/// What an artifact returns for one picture, by output name.
public typealias Outputs = [String: Tensor]

/// The number of values of a shape; nil for a side below 1, or where it is larger than an `Int` can tell.
func volume(of shape: [Int]) -> Int? {
    var product = 1
    for side in shape {
        let (value, overflow) = product.multipliedReportingOverflow(by: side)
        if side < 1 || overflow { return nil }
        product = value
    }
    return product
}

/// A shape in words: (1, 80, 8, 8).
func describe(_ shape: [Int]) -> String {
    "(" + shape.map(String.init).joined(separator: ", ") + ")"
}
