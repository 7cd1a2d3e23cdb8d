import AVFoundation
import CoreVideo
import Foundation

/// The device's cameras by AVFoundation. Everything but the permission happens on a queue of its own, for starting a
/// camera blocks; so do the events.
final class CameraSession: NSObject, CameraSource, @unchecked Sendable {
    /// For the layer that shows it; nothing else is to change it.
    let session = AVCaptureSession()

    private let queue = DispatchQueue(label: "camera")
    private let output = AVCaptureVideoDataOutput()
    private let tokens = NotificationTokens()

    // Only on the queue.
    private var events: (@Sendable (CameraEvent) -> Void)?
    private var side = CameraSide.back
    private var rotation = CameraGeometry.Rotation.quarter
    private var isConfigured = false

    /// The cameras, none of which is started.
    override init() {
        super.init()
        tokens.observe(AVCaptureSession.wasInterruptedNotification, object: session) { [weak self] notification in
            let reason = notification.userInfo?[AVCaptureSessionInterruptionReasonKey] as? Int
            let problem = Self.problem(of: reason.flatMap(AVCaptureSession.InterruptionReason.init))
            if let problem { self?.tell(.problem(problem)) }
        }
        tokens.observe(AVCaptureSession.interruptionEndedNotification, object: session) { [weak self] _ in
            self?.tell(.resumed)
        }
        tokens.observe(AVCaptureSession.runtimeErrorNotification, object: session) { [weak self] notification in
            let error = notification.userInfo?[AVCaptureSessionErrorKey] as? AVError
            self?.recover(wasReset: error?.code == .mediaServicesWereReset)
        }
    }

    /// The device's camera on a side; nil where there is none.
    static func device(_ side: CameraSide) -> AVCaptureDevice? {
        AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: side == .back ? .back : .front)
    }

    /// How the buffers lie on the screen from now on.
    func setRotation(_ rotation: CameraGeometry.Rotation) {
        queue.async { self.rotation = rotation }
    }

    func permission() -> CameraPermission {
        switch AVCaptureDevice.authorizationStatus(for: .video) {
        case .authorized: .allowed
        case .notDetermined: .notAsked
        case .restricted: .restricted
        case .denied: .refused
        @unknown default: .refused
        }
    }

    func ask() async {
        _ = await AVCaptureDevice.requestAccess(for: .video)
    }

    func sides() -> [CameraSide] {
        CameraSide.allCases.filter { Self.device($0) != nil }
    }

    func start(_ side: CameraSide, events: @escaping @Sendable (CameraEvent) -> Void) {
        queue.async {
            self.events = events
            if let problem = self.configure(side) {
                events(.problem(problem))
            } else {
                self.session.startRunning()
            }
        }
    }

    func stop() {
        queue.async {
            self.events = nil
            self.session.stopRunning()
        }
    }

    // MARK: On the queue

    /// Puts a camera in place of the one before; nil where that went well.
    private func configure(_ side: CameraSide) -> CameraProblem? {
        if isConfigured, side == self.side { return nil }
        session.beginConfiguration()
        defer { session.commitConfiguration() }
        isConfigured = false
        session.inputs.forEach(session.removeInput)
        guard let device = Self.device(side) else { return .noCamera }
        guard let input = try? AVCaptureDeviceInput(device: device) else { return .failed }
        guard session.canAddInput(input) else { return .noFormat }
        session.addInput(input)
        // Fine enough to be looked at; inputs of models are 256 pixels wide or so.
        for preset in [AVCaptureSession.Preset.hd1280x720, .vga640x480] where session.canSetSessionPreset(preset) {
            session.sessionPreset = preset
            break
        }
        if !session.outputs.contains(output) {
            guard session.canAddOutput(output) else { return .noFormat }
            session.addOutput(output)
            output.videoSettings = [
                kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_420YpCbCr8BiPlanarFullRange
            ]
            output.alwaysDiscardsLateVideoFrames = true
            output.setSampleBufferDelegate(self, queue: queue)
        }
        self.side = side
        isConfigured = true
        return nil
    }

    private func tell(_ event: CameraEvent) {
        queue.async { self.events?(event) }
    }

    private func recover(wasReset: Bool) {
        queue.async {
            guard self.events != nil else { return }
            if wasReset {
                // The system's media service was started anew: the session can go on.
                self.session.startRunning()
            } else {
                self.isConfigured = false
                self.events?(.problem(.failed))
            }
        }
    }

    /// Nil for what is none: in the background the screen stops the camera by itself.
    private static func problem(of reason: AVCaptureSession.InterruptionReason?) -> CameraProblem? {
        switch reason {
        case .videoDeviceNotAvailableInBackground: nil
        case .videoDeviceInUseByAnotherClient: .inUse
        case .videoDeviceNotAvailableWithMultipleForegroundApps: .sharedScreen
        case .videoDeviceNotAvailableDueToSystemPressure: .pressure
        default: .failed
        }
    }
}

extension CameraSession: AVCaptureVideoDataOutputSampleBufferDelegate {
    func captureOutput(
        _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection
    ) {
        guard let pixels = CMSampleBufferGetImageBuffer(sampleBuffer) else { return }
        let geometry = CameraGeometry(rotation: rotation, isFront: side == .front)
        events?(.frame(LiveFrame(pixels: pixels, geometry: geometry)))
    }
}
