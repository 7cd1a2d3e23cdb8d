@_exported import Foundation

// What the app uses of Foundation that Apple's has and Linux's lacks. Here, and in the stubs of AVFoundation, Combine,
// PhotosUI, SwiftUI, UIKit and UniformTypeIdentifiers, are only members that Apple's modules have, their signatures
// as far as they matter to a caller; they do nothing. What the app does not use is left out, so that it is refused.

extension String {
    /// A text to be translated, and what is put into it.
    public struct LocalizationValue: ExpressibleByStringInterpolation, Sendable {
        let text: String

        public init(stringLiteral value: String) { text = value }
    }

    /// In the language of the source.
    public init(
        localized keyAndValue: LocalizationValue, table: String? = nil, bundle: Bundle? = nil,
        locale: Locale = .current, comment: StaticString? = nil
    ) {
        self = keyAndValue.text
    }
}

extension ProcessInfo {
    public enum ThermalState: Int, Sendable {
        case nominal = 0
        case fair = 1
        case serious = 2
        case critical = 3
    }

    public var thermalState: ThermalState { .nominal }

    public static let thermalStateDidChangeNotification = Notification.Name("NSProcessInfoThermalStateDidChange")
}

extension URL {
    public func startAccessingSecurityScopedResource() -> Bool { false }

    public func stopAccessingSecurityScopedResource() {}
}

public class NSKeyValueObservation: NSObject {
    public func invalidate() {}
}

public struct NSKeyValueObservingOptions: OptionSet, Sendable {
    public let rawValue: UInt

    public init(rawValue: UInt) { self.rawValue = rawValue }

    public static let new = NSKeyValueObservingOptions(rawValue: 1)
    public static let old = NSKeyValueObservingOptions(rawValue: 2)
    public static let initial = NSKeyValueObservingOptions(rawValue: 4)
}

public struct NSKeyValueObservedChange<Value> {
    public let newValue: Value?
    public let oldValue: Value?
}
