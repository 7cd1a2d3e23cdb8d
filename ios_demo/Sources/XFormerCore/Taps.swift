import Foundation

/// The weights of Pillow's antialiased bilinear filter for one axis: section 3 of docs/preprocessing.md.
///
/// Target sample `i` is made of the source samples from `first[i]` on, with the weights from `start[i]` until
/// `start[i + 1]`: fixed-point numbers with ``bits`` bits behind the point.
struct Taps: Sendable {
    let first: [Int]
    let start: [Int]
    let weights: [Int32]

    /// The largest number of source samples for one target sample.
    let most: Int

    /// What a sum of 32 bits leaves: less 8 of the sample, less 2 spare.
    static let bits: Int32 = 22

    /// For the samples `part` of an axis of `size` samples that becomes `resized`, all from 1 on.
    static func of(size: Int, resized: Int, part: Range<Int>) -> Taps {
        let axis = Axis(size: size, resized: resized, part: part)
        if let known = cache.taps(of: axis) { return known }
        let made = Taps(axis)
        cache.keep(made, for: axis)
        return made
    }

    /// How many source samples make a target sample.
    func count(_ target: Int) -> Int { start[target + 1] - start[target] }

    private init(_ axis: Axis) {
        let scale = Double(axis.size) / Double(axis.resized)
        let reach = max(scale, 1.0)
        let inverse = 1.0 / reach
        var first: [Int] = []
        var start = [0]
        var weights: [Int32] = []
        var shares: [Double] = []
        var most = 0
        for i in axis.part {
            let centre = (Double(i) + 0.5) * scale
            let low = max(Int(centre - reach + 0.5), 0)
            let high = min(Int(centre + reach + 0.5), axis.size)
            var total = 0.0
            shares.removeAll(keepingCapacity: true)
            for j in low..<high {
                let distance = abs((Double(j) - centre + 0.5) * inverse)
                let share = distance < 1.0 ? 1.0 - distance : 0.0
                shares.append(share)
                total += share
            }
            first.append(low)
            for share in shares { weights.append(Int32(0.5 + share / total * Double(1 << Self.bits))) }
            start.append(weights.count)
            most = max(most, high - low)
        }
        self.first = first
        self.start = start
        self.weights = weights
        self.most = most
    }

    private struct Axis: Hashable {
        let size: Int
        let resized: Int
        let part: Range<Int>
    }

    private static let cache = Cache()

    /// The latest tables. The lock guards all that can change.
    private final class Cache: @unchecked Sendable {
        private static let most = 16

        /// A longer table is not kept: it is of a picture, not of a camera's frames.
        private static let longest = 1 << 15

        private let lock = NSLock()
        private var kept: [(axis: Axis, taps: Taps)] = []

        func taps(of axis: Axis) -> Taps? {
            lock.withLock {
                guard let place = kept.firstIndex(where: { $0.axis == axis }) else { return nil }
                let found = kept.remove(at: place)
                kept.append(found)
                return found.taps
            }
        }

        func keep(_ taps: Taps, for axis: Axis) {
            guard taps.weights.count <= Self.longest else { return }
            lock.withLock {
                kept.removeAll { $0.axis == axis }
                if kept.count == Self.most { kept.removeFirst() }
                kept.append((axis, taps))
            }
        }
    }
}
