import AVFoundation
import SwiftUI
import UIKit

/// The camera's live picture. It fills the view, upright, and mirrored for the front camera.
struct CameraPreview: UIViewRepresentable {
    let camera: CameraSession
    let side: CameraSide

    func makeUIView(context: Context) -> PreviewView {
        PreviewView(camera: camera)
    }

    func updateUIView(_ view: PreviewView, context: Context) {
        view.show(side)
    }
}

/// A view of a camera session. It tells the session how the picture lies on the screen.
final class PreviewView: UIView {
    private let camera: CameraSession
    private var side: CameraSide?
    private let tokens = NotificationTokens()

    // iOS 17 and later tell the rotation, also of cameras that are built in otherwise than the usual ones.
    private var coordinator: NSObject?
    private var angle: NSKeyValueObservation?
    private var geometry: NSKeyValueObservation?

    override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }

    init(camera: CameraSession) {
        self.camera = camera
        super.init(frame: .zero)
        preview?.session = camera.session
        preview?.videoGravity = .resizeAspectFill
        // Before the session runs there is nothing to be turned.
        tokens.observe(AVCaptureSession.didStartRunningNotification, onMain: true) { [weak self] _ in
            MainActor.assumeIsolated { self?.rotate() }
        }
    }

    required init?(coder: NSCoder) { nil }

    /// Show the camera on a side.
    func show(_ side: CameraSide) {
        if side == self.side { return }
        self.side = side
        angle = nil
        coordinator = nil
        if #available(iOS 17.0, *), let device = CameraSession.device(side) {
            let made = AVCaptureDevice.RotationCoordinator(device: device, previewLayer: layer)
            coordinator = made
            angle = made.observe(\.videoRotationAngleForHorizonLevelPreview) { [weak self] _, _ in
                // The coordinator tells on the main thread.
                MainActor.assumeIsolated { self?.rotate() }
            }
        }
        rotate()
    }

    override func didMoveToWindow() {
        super.didMoveToWindow()
        // Half a turn does not lay the view out again; and the device turns before the app's screen does.
        geometry = window?.windowScene?.observe(\.effectiveGeometry) { [weak self] _, _ in
            // UIKit changes it on the main thread.
            MainActor.assumeIsolated { self?.rotate() }
        }
        rotate()
    }

    override func layoutSubviews() {
        super.layoutSubviews()
        rotate()
    }

    private var preview: AVCaptureVideoPreviewLayer? { layer as? AVCaptureVideoPreviewLayer }

    private func rotate() {
        if #available(iOS 17.0, *), let coordinator = coordinator as? AVCaptureDevice.RotationCoordinator {
            let degrees = coordinator.videoRotationAngleForHorizonLevelPreview
            if let connection = preview?.connection, connection.isVideoRotationAngleSupported(degrees) {
                connection.videoRotationAngle = degrees
            }
            camera.setRotation(CameraGeometry.Rotation(degrees: degrees))
        } else {
            let orientation = window?.windowScene?.interfaceOrientation ?? .portrait
            if let connection = preview?.connection, connection.isVideoOrientationSupported {
                connection.videoOrientation = orientation.video
            }
            camera.setRotation(CameraGeometry.Rotation(interface: orientation.interface, isFront: side == .front))
        }
    }
}

extension UIInterfaceOrientation {
    fileprivate var interface: CameraGeometry.Rotation.Interface {
        switch self {
        case .portraitUpsideDown: .portraitUpsideDown
        case .landscapeLeft: .landscapeLeft
        case .landscapeRight: .landscapeRight
        default: .portrait
        }
    }

    fileprivate var video: AVCaptureVideoOrientation {
        switch self {
        case .portraitUpsideDown: .portraitUpsideDown
        case .landscapeLeft: .landscapeLeft
        case .landscapeRight: .landscapeRight
        default: .portrait
        }
    }
}
