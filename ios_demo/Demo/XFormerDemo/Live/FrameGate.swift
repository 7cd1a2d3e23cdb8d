import Foundation
import XFormerCore

/// Between the camera's thread and the screen: lets frames through to whatever analyzes them now, fewer when the device
/// is hot. May be used from any thread.
final class FrameGate: @unchecked Sendable {
    /// When the device is hot, a frame is let through every so often.
    private static let hotPauseNs = 250_000_000

    private let clock: any BenchmarkClock
    private let lock = NSLock()

    // Only with the lock.
    private var analyzer: Analyzer<LiveFrame, LiveResult>?
    private var heat = ThermalState.nominal
    private var lastNs: Int?

    /// A gate that is closed.
    init(clock: any BenchmarkClock) {
        self.clock = clock
    }

    /// From now on frames go to `analyzer`; the one before is closed.
    func open(to analyzer: Analyzer<LiveFrame, LiveResult>?) {
        let old = lock.withLock {
            defer { self.analyzer = analyzer }
            return self.analyzer
        }
        old?.close()
    }

    /// How hot the device is.
    func setHeat(_ heat: ThermalState) {
        lock.withLock { self.heat = heat }
    }

    /// Takes a frame.
    func offer(_ frame: LiveFrame) {
        lock.withLock { isNext() ? analyzer : nil }?.offer(frame)
    }

    private func isNext() -> Bool {
        switch heat {
        case .nominal, .fair: return true
        case .critical: return false
        case .serious:
            let now = clock.nanoseconds()
            if let lastNs, now - lastNs < Self.hotPauseNs { return false }
            lastNs = now
            return true
        }
    }
}
