import ImageIO
import XFormerCore

/// How a camera's buffers lie on the screen.
struct CameraGeometry: Equatable, Sendable {
    /// Clockwise by so much a buffer is turned to be upright on the screen.
    enum Rotation: Int, Sendable, CaseIterable {
        case none = 0
        case quarter = 90
        case half = 180
        case threeQuarters = 270
    }

    let rotation: Rotation

    /// A front camera looks at the viewer: its picture is shown mirrored, and analyzed as it is.
    let isFront: Bool

    /// What an engine is told, so that it sees the picture upright.
    var orientation: CGImagePropertyOrientation {
        switch rotation {
        case .none: .up
        case .quarter: .right
        case .half: .down
        case .threeQuarters: .left
        }
    }

    /// The size of a buffer after it is turned upright.
    func upright(_ buffer: PixelSize) -> PixelSize {
        switch rotation {
        case .none, .half: buffer
        case .quarter, .threeQuarters: PixelSize(width: buffer.height, height: buffer.width)
        }
    }
}

extension CameraGeometry.Rotation {
    /// Which way up the app is drawn: where the bottom of its screen is, held in landscape by its right or left side.
    enum Interface: Sendable, CaseIterable {
        case portrait
        case portraitUpsideDown
        case landscapeRight
        case landscapeLeft
    }

    /// Of degrees that AVFoundation gives, which are right angles; the nearest one where they are not.
    init(degrees: Double) {
        guard degrees.isFinite else {
            self = .none
            return
        }
        let quarters = (degrees / 90).rounded().truncatingRemainder(dividingBy: 4)
        self = Self(rawValue: (Int(quarters) + 4) % 4 * 90) ?? .none
    }

    /// For iOS 16, which does not tell: the sensors lie in landscape, the back one upright when the app is drawn with
    /// the bottom at the device's right side, the front one with it at the left.
    init(interface: Interface, isFront: Bool) {
        switch interface {
        case .portrait: self = .quarter
        case .portraitUpsideDown: self = .threeQuarters
        case .landscapeRight: self = isFront ? .half : .none
        case .landscapeLeft: self = isFront ? .none : .half
        }
    }
}
