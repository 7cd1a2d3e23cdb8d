@_exported import CoreGraphics
@_exported import FoundationOnApple

open class CALayer: NSObject {}

@MainActor
open class UIResponder: NSObject {}

@MainActor
open class UIView: UIResponder {
    open class var layerClass: AnyClass { CALayer.self }

    public init(frame: CGRect) {}

    public required init?(coder: NSCoder) {}

    open var layer: CALayer { CALayer() }

    open var window: UIWindow? { nil }

    open func didMoveToWindow() {}

    open func layoutSubviews() {}
}

@MainActor
open class UIWindow: UIView {
    open weak var windowScene: UIWindowScene?
}

@MainActor
open class UIWindowScene: UIResponder {
    public final class Geometry: NSObject {}

    open var interfaceOrientation: UIInterfaceOrientation { .portrait }

    open var effectiveGeometry: Geometry { Geometry() }

    public nonisolated func observe<Value>(
        _ keyPath: KeyPath<UIWindowScene, Value>, options: NSKeyValueObservingOptions = [],
        changeHandler: @escaping @Sendable (UIWindowScene, NSKeyValueObservedChange<Value>) -> Void
    ) -> NSKeyValueObservation { NSKeyValueObservation() }
}

public enum UIInterfaceOrientation: Int, Sendable {
    case unknown = 0
    case portrait = 1
    case portraitUpsideDown = 2
    case landscapeLeft = 4
    case landscapeRight = 3
}

@MainActor
open class UIApplication: UIResponder {
    public class var shared: UIApplication { UIApplication() }

    public nonisolated static let didReceiveMemoryWarningNotification = Notification.Name(
        "UIApplicationDidReceiveMemoryWarningNotification")

    public nonisolated static let openSettingsURLString = "app-settings:"

    open var isIdleTimerDisabled: Bool {
        get { false }
        set {}
    }
}

@MainActor
public enum UIAccessibility {
    public struct Notification: RawRepresentable, Hashable, Sendable {
        public var rawValue: UInt32

        public init(rawValue: UInt32) { self.rawValue = rawValue }

        public static let announcement = Notification(rawValue: 1008)
    }

    public static var isVoiceOverRunning: Bool { false }

    public static func post(notification: Notification, argument: Any?) {}
}

public final class UIColor: NSObject {
    public class var systemBackground: UIColor { UIColor() }
}
