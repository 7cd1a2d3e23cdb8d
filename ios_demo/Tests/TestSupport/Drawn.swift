import XFormerCore

/// Whole numbers of 24 bits that any language can draw: the upper ones of a linear congruential generator of 32 bits.
/// Expected values in tests that compare with Python are of the same numbers.
public struct Drawn: Sendable {
    private var state: UInt32

    /// The numbers of a seed.
    public init(seed: UInt32) {
        state = seed
    }

    /// The next number, 0 until 2^24.
    public mutating func next() -> Int {
        state = state &* 1_664_525 &+ 1_013_904_223
        return Int(state >> 8)
    }

    /// Exact multiples of 2^-20 in -8 until 8.
    public mutating func floats(_ count: Int) -> [Float] {
        (0..<count).map { _ in Float(next()) / 1_048_576 - 8 }
    }

    /// The lowest 8 bits of each.
    public mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) }
    }
}

/// Random numbers that a seed repeats: SplitMix64, by Steele, Lea and Flood.
public struct Seeded: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// The numbers of a seed.
    public init(_ seed: Int) {
        state = UInt64(seed)
    }

    /// The next 64 bits.
    public mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var bits = state
        bits = (bits ^ (bits >> 30)) &* 0xbf58_476d_1ce4_e5b9
        bits = (bits ^ (bits >> 27)) &* 0x94d0_49bb_1331_11eb
        return bits ^ (bits >> 31)
    }

    /// A picture of any bytes.
    public mutating func picture(_ width: Int, _ height: Int) throws -> RgbImage {
        try RgbImage(width: width, height: height, bytes: bytes(3 * width * height))
    }

    /// Any bytes.
    public mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) }
    }
}

/// What happened with which seed.
public struct SeedFailure: Error, CustomStringConvertible {
    /// In words.
    public let description: String
}

/// Runs a test for each of so many seeds; a failure that is thrown names the seed.
public func forSeeds(_ count: Int, _ test: (inout Seeded) throws -> Void) throws {
    for seed in 0..<count {
        var random = Seeded(seed)
        do {
            try test(&random)
        } catch {
            throw SeedFailure(description: "with seed \(seed): \(error)")
        }
    }
}
