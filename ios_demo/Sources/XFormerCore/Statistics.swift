import Foundation

// The formulas are those of xformer_mobile/bench/latency_run.py.

/// Of one phase's samples; percentiles are interpolated linearly.
public struct Statistics: Sendable, Equatable {
    /// How many samples there are.
    public let count: Int

    /// The shortest.
    public let minNs: Int

    /// The median.
    public let p50Ns: Double

    /// Nine of ten are shorter.
    public let p90Ns: Double

    /// 99 of a hundred are shorter.
    public let p99Ns: Double

    /// (p90 - p50) / p50; 0 where the median is.
    public let spread: Double

    /// The statistics of samples in nanoseconds.
    ///
    /// - Throws: ``XFormerError/benchmark(_:)`` when there is none.
    public init(samplesNs: [Int]) throws {
        let ordered = samplesNs.sorted()
        guard let shortest = ordered.first else {
            throw XFormerError.benchmark("there are no samples to make statistics of")
        }
        count = ordered.count
        minNs = shortest
        p50Ns = percentile(0.5, of: ordered)
        p90Ns = percentile(0.9, of: ordered)
        p99Ns = percentile(0.99, of: ordered)
        spread = p50Ns != 0 ? (p90Ns - p50Ns) / p50Ns : 0
    }
}

/// The middle one of the samples, of which there must be one or more.
func median(_ samples: some Sequence<Int>) -> Double { percentile(0.5, of: samples.sorted()) }

private func percentile(_ share: Double, of ordered: [Int]) -> Double {
    let place = share * Double(ordered.count - 1)
    let low = Int(place)
    let high = min(low + 1, ordered.count - 1)
    return Double(ordered[low]) + (Double(ordered[high]) - Double(ordered[low])) * (place - Double(low))
}

/// A share as Python's `%` format writes it.
func percent(_ share: Double, digits: Int) -> String { "\(fixed(100 * share, digits: digits))%" }

/// A number with so many digits after the point, whatever the locale.
func fixed(_ value: Double, digits: Int) -> String { String(format: "%.\(digits)f", value) }

extension LatencyRun.Measurement {
    /// The median must be known this well, relatively, or the phone was too noisy.
    private static let medianWithin = 0.03

    /// The processes' medians must be within this of their median.
    private static let processesWithin = 0.05

    /// So often, for each run, may the system take the processor away.
    private static let maxPreempted = 0.25

    private static let calm = ["nominal", "none", "light", "fair"]

    /// Why the inference times can't be relied on, in words; empty where they can.
    public func noise() -> [String] {
        let samples = phases.inference.samplesNs
        guard !samples.isEmpty else { return ["there are no samples of inference"] }
        var reasons: [String] = []
        let middle = median(samples)
        let half = middle != 0 ? halfWidth(of: samples) / middle : .infinity
        if half > Self.medianWithin {
            let known = half.isInfinite ? "is not known at all" : "is known to \(percent(half, digits: 1)) only"
            reasons.append(
                "the median of \(samples.count) samples \(known), "
                    + "\(percent(Self.medianWithin, digits: 0)) is asked for")
        }
        let apart = middle == 0 ? 0 : phases.inference.byProcess().map { abs(median($0) / middle - 1) }.max() ?? 0
        if apart > Self.processesWithin {
            reasons.append(
                "a process differs from the others by \(percent(apart, digits: 1)), "
                    + "\(percent(Self.processesWithin, digits: 0)) is allowed")
        }
        let preempted = Double(disturbances?.preempted ?? 0) / Double(samples.count)
        if preempted > Self.maxPreempted {
            reasons.append(
                "the system took the processor away \(fixed(preempted, digits: 1)) times a run, "
                    + "\(Self.maxPreempted) are allowed")
        }
        if (disturbances?.unstableWarmUps ?? 0) > 0 {
            reasons.append("the times were still changing when the warm-up was given up")
        }
        if let state = disturbances?.thermalState, !Self.calm.contains(state) {
            reasons.append("the thermal state was \(state.prefix(40))")
        }
        return reasons
    }
}

extension LatencyRun.Measurement.Phase {
    /// The samples process by process; all together where the counts do not fit them.
    fileprivate func byProcess() -> [ArraySlice<Int>] {
        let counts = processes ?? [samplesNs.count]
        guard counts.allSatisfy({ (0...samplesNs.count).contains($0) }), counts.reduce(0, +) == samplesNs.count else {
            return [samplesNs[...]]
        }
        var rest = samplesNs[...]
        return counts.filter { $0 > 0 }.map { count in
            defer { rest = rest.dropFirst(count) }
            return rest.prefix(count)
        }
    }
}

/// Half the width of a 95 % interval of the median, from the order statistics (the binomial's normal limit).
private func halfWidth(of samples: [Int]) -> Double {
    let away = Int((0.98 * Double(samples.count).squareRoot()).rounded(.up))  // 1.96 deviations of sqrt(count) / 2
    let low = samples.count / 2 - away
    let high = (samples.count - 1) / 2 + away
    guard low >= 0, high < samples.count else { return .infinity }
    let ordered = samples.sorted()
    return (Double(ordered[high]) - Double(ordered[low])) / 2
}
