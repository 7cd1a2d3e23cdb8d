@_exported import CoreVideo
import UIKit

public struct AVMediaType: RawRepresentable, Hashable, Sendable {
    public let rawValue: String

    public init(rawValue: String) { self.rawValue = rawValue }

    public static let video = AVMediaType(rawValue: "vide")
}

public enum AVAuthorizationStatus: Int, Sendable {
    case notDetermined = 0
    case restricted = 1
    case denied = 2
    case authorized = 3
}

public class AVCaptureDevice: NSObject {
    public enum Position: Int, Sendable {
        case unspecified = 0
        case back = 1
        case front = 2
    }

    public struct DeviceType: RawRepresentable, Hashable, Sendable {
        public let rawValue: String

        public init(rawValue: String) { self.rawValue = rawValue }

        public static let builtInWideAngleCamera = DeviceType(rawValue: "AVCaptureDeviceTypeBuiltInWideAngleCamera")
    }

    public class func `default`(
        _ deviceType: DeviceType, for mediaType: AVMediaType?, position: Position
    ) -> AVCaptureDevice? { nil }

    public class func authorizationStatus(for mediaType: AVMediaType) -> AVAuthorizationStatus { .notDetermined }

    public class func requestAccess(for mediaType: AVMediaType) async -> Bool { false }

    @available(iOS 17.0, *)
    public class RotationCoordinator: NSObject {
        public init(device: AVCaptureDevice, previewLayer: CALayer?) {}

        public var videoRotationAngleForHorizonLevelPreview: CGFloat { 0 }

        public func observe<Value>(
            _ keyPath: KeyPath<RotationCoordinator, Value>, options: NSKeyValueObservingOptions = [],
            changeHandler: @escaping @Sendable (RotationCoordinator, NSKeyValueObservedChange<Value>) -> Void
        ) -> NSKeyValueObservation { NSKeyValueObservation() }
    }
}

public class AVCaptureInput: NSObject {}

public class AVCaptureDeviceInput: AVCaptureInput {
    public init(device: AVCaptureDevice) throws {}
}

public class AVCaptureOutput: NSObject {}

public class AVCaptureVideoDataOutput: AVCaptureOutput {
    public var videoSettings: [String: Any]!

    public var alwaysDiscardsLateVideoFrames = true

    public func setSampleBufferDelegate(
        _ sampleBufferDelegate: (any AVCaptureVideoDataOutputSampleBufferDelegate)?,
        queue sampleBufferCallbackQueue: DispatchQueue?
    ) {}
}

public protocol AVCaptureVideoDataOutputSampleBufferDelegate: NSObjectProtocol {
    func captureOutput(
        _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection)
}

public class CMSampleBuffer {}

public func CMSampleBufferGetImageBuffer(_ sbuf: CMSampleBuffer) -> CVImageBuffer? { nil }

public class AVCaptureConnection: NSObject {
    public var isVideoOrientationSupported: Bool { false }

    public var videoOrientation = AVCaptureVideoOrientation.portrait

    @available(iOS 17.0, *)
    public func isVideoRotationAngleSupported(_ videoRotationAngle: CGFloat) -> Bool { false }

    @available(iOS 17.0, *)
    public var videoRotationAngle: CGFloat {
        get { 0 }
        set {}
    }
}

public enum AVCaptureVideoOrientation: Int, Sendable {
    case portrait = 1
    case portraitUpsideDown = 2
    case landscapeRight = 3
    case landscapeLeft = 4
}

public class AVCaptureSession: NSObject {
    public struct Preset: RawRepresentable, Hashable, Sendable {
        public let rawValue: String

        public init(rawValue: String) { self.rawValue = rawValue }

        public static let hd1280x720 = Preset(rawValue: "AVCaptureSessionPreset1280x720")
        public static let vga640x480 = Preset(rawValue: "AVCaptureSessionPreset640x480")
    }

    public enum InterruptionReason: Int, Sendable {
        case videoDeviceNotAvailableInBackground = 1
        case audioDeviceInUseByAnotherClient = 2
        case videoDeviceInUseByAnotherClient = 3
        case videoDeviceNotAvailableWithMultipleForegroundApps = 4
        case videoDeviceNotAvailableDueToSystemPressure = 5
    }

    public static let wasInterruptedNotification = Notification.Name("AVCaptureSessionWasInterruptedNotification")
    public static let interruptionEndedNotification = Notification.Name("AVCaptureSessionInterruptionEndedNotification")
    public static let runtimeErrorNotification = Notification.Name("AVCaptureSessionRuntimeErrorNotification")
    public static let didStartRunningNotification = Notification.Name("AVCaptureSessionDidStartRunningNotification")

    public var inputs: [AVCaptureInput] { [] }

    public var outputs: [AVCaptureOutput] { [] }

    public var sessionPreset: Preset {
        get { .vga640x480 }
        set {}
    }

    public func canSetSessionPreset(_ preset: Preset) -> Bool { false }

    public func beginConfiguration() {}

    public func commitConfiguration() {}

    public func canAddInput(_ input: AVCaptureInput) -> Bool { false }

    public func addInput(_ input: AVCaptureInput) {}

    public func removeInput(_ input: AVCaptureInput) {}

    public func canAddOutput(_ output: AVCaptureOutput) -> Bool { false }

    public func addOutput(_ output: AVCaptureOutput) {}

    public func startRunning() {}

    public func stopRunning() {}
}

public let AVCaptureSessionInterruptionReasonKey = "AVCaptureSessionInterruptionReasonKey"
public let AVCaptureSessionErrorKey = "AVCaptureSessionErrorKey"

public struct AVError: Error {
    public enum Code: Int, Sendable {
        case unknown = -11800
        case mediaServicesWereReset = -11819
    }

    public var code: Code { .unknown }
}

public struct AVLayerVideoGravity: RawRepresentable, Hashable, Sendable {
    public let rawValue: String

    public init(rawValue: String) { self.rawValue = rawValue }

    public static let resizeAspectFill = AVLayerVideoGravity(rawValue: "AVLayerVideoGravityResizeAspectFill")
}

public class AVCaptureVideoPreviewLayer: CALayer {
    public var session: AVCaptureSession?

    public var videoGravity = AVLayerVideoGravity.resizeAspectFill

    public var connection: AVCaptureConnection? { nil }
}
