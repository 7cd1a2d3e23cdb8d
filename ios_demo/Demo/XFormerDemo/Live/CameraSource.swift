/// Which camera.
enum CameraSide: Sendable, CaseIterable {
    case back
    case front
}

/// Whether the app may use the camera.
enum CameraPermission: Sendable {
    case notAsked
    case allowed
    case refused
    case restricted
}

/// What a camera tells.
enum CameraEvent: Sendable {
    case frame(LiveFrame)

    /// There will be no more frames, until ``resumed`` where the system gives the camera back.
    case problem(CameraProblem)

    /// The system has given the camera back.
    case resumed
}

/// The device's cameras. A protocol, so that the live screen's state runs without one.
protocol CameraSource: Sendable {
    /// Whether the app may use the camera now.
    func permission() -> CameraPermission

    /// Asks the user; returns at once where that was done before.
    func ask() async

    /// The cameras that there are.
    func sides() -> [CameraSide]

    /// Shows a camera, instead of the one before, and tells `events` what happens, on any thread.
    func start(_ side: CameraSide, events: @escaping @Sendable (CameraEvent) -> Void)

    /// Stops; nothing is told any more, but for what is on its way.
    func stop()
}
