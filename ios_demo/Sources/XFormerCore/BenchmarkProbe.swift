import Dispatch
import Foundation

/// Where a benchmark's times come from.
public protocol BenchmarkClock: Sendable {
    /// Of a clock that only goes forward.
    func nanoseconds() -> Int

    /// The time of day.
    func now() -> Date
}

/// The system's clocks.
public struct SystemClock: BenchmarkClock {
    /// The system's clocks.
    public init() {}

    /// Since the system was started, without the time that it slept.
    public func nanoseconds() -> Int { Int(clamping: DispatchTime.now().uptimeNanoseconds) }

    /// The time of day.
    public func now() -> Date { Date() }
}

/// How hot a device is; the values of Apple's `ProcessInfo.ThermalState`, in their order.
public enum ThermalState: String, Sendable, CaseIterable, Comparable {
    /// As it should be.
    case nominal

    /// A little warm; nothing is slowed down.
    case fair

    /// Hot; the system slows down.
    case serious

    /// Too hot.
    case critical

    /// Whether `a` is cooler than `b`.
    public static func < (a: ThermalState, b: ThermalState) -> Bool {
        allCases.firstIndex(of: a)! < allCases.firstIndex(of: b)!  // all cases are in allCases
    }
}

/// What a device says of itself during a benchmark; nil where it does not say.
public protocol BenchmarkProbe: Sendable {
    /// How hot it is now.
    func thermalState() -> ThermalState?

    /// Memory of this process that is in RAM now.
    func residentBytes() -> Int?

    /// The most memory of this process that was in RAM.
    func peakResidentBytes() -> Int?

    /// How often the system has taken the processor away from this process.
    func preemptions() -> Int?
}

extension BenchmarkProbe {
    /// Does not say.
    public func thermalState() -> ThermalState? { nil }

    /// Does not say.
    public func residentBytes() -> Int? { nil }

    /// Does not say.
    public func peakResidentBytes() -> Int? { nil }

    /// Does not say.
    public func preemptions() -> Int? { nil }
}

/// Says nothing.
public struct SilentProbe: BenchmarkProbe {
    /// Says nothing.
    public init() {}
}
