import Foundation

/// Numbers as the app writes them: alike in every language, as in the files that it shares.
enum Figures {
    /// A share 0..1: "91 %". Nothing that can't be a share gets so far: predictions are finite.
    static func percent(_ share: Double) -> String { decimals(100 * share, 0) + " %" }

    /// A share 0..1 with two decimals: "99.95 %".
    static func exactPercent(_ share: Double) -> String { decimals(100 * share, 2) + " %" }

    /// Nanoseconds in milliseconds: "12.3 ms".
    static func milliseconds(_ ns: Double) -> String { decimals(ns / 1e6, 1) + " ms" }

    /// A rate: "29".
    static func rate(_ perSecond: Double) -> String { decimals(perSecond, 0) }

    /// "35.2 dB".
    static func decibels(_ value: Double, places: Int = 1) -> String { decimals(value, places) + " dB" }

    /// "1.2e-05".
    static func scientific(_ value: Double) -> String { String(format: "%.1e", value) }

    /// Width by height: "640 × 480".
    static func size(width: Int, height: Int) -> String { "\(width) × \(height)" }

    private static func decimals(_ value: Double, _ places: Int) -> String { String(format: "%.\(places)f", value) }
}
