/// Why there are no live pictures.
enum CameraProblem: Sendable, CaseIterable {
    /// The user was not asked yet.
    case notAsked

    /// The user has refused; the system asks only once.
    case refused

    /// A profile or parental controls forbid it; the user can't allow it.
    case restricted

    case noCamera
    case inUse
    case sharedScreen
    case pressure
    case noFormat
    case failed

    /// What is said of it.
    var text: String {
        switch self {
        case .notAsked: Words.cameraAsk
        case .refused: Words.cameraRefused
        case .restricted: Words.cameraRestricted
        case .noCamera: Words.cameraNone
        case .inUse: Words.cameraInUse
        case .sharedScreen: Words.cameraSharedScreen
        case .pressure: Words.cameraPressure
        case .noFormat: Words.cameraNoFormat
        case .failed: Words.cameraFailed
        }
    }

    /// What the user can do.
    var remedy: Remedy {
        switch self {
        case .notAsked: .allowCamera
        case .refused: .openSettings
        case .restricted, .noCamera: .openPicture
        case .inUse, .sharedScreen, .pressure, .noFormat, .failed: .tryAgain
        }
    }
}

/// What a message offers to do.
enum Remedy: Sendable {
    case allowCamera
    case openSettings
    case openPicture
    case openSetup
    case tryAgain

    /// The button's title.
    var title: String {
        switch self {
        case .allowCamera: Words.cameraAllow
        case .openSettings: Words.openSettings
        case .openPicture: Words.openPicture
        case .openSetup: Words.openSetup
        case .tryAgain: Words.tryAgain
        }
    }
}

/// What is shown in place of a picture.
struct Message: Equatable, Sendable {
    let text: String
    let remedy: Remedy
}
