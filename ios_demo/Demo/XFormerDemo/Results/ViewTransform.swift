import Foundation
import XFormerCore

/// How a picture is put into a view of another shape.
enum ScaleMode: Sendable {
    /// It covers the view; what reaches beyond is cut off.
    case fill

    /// The whole of it is seen, between empty strips.
    case fit
}

/// From pixels of an upright picture to points of the view that shows it, in its middle.
struct ViewTransform: Equatable, Sendable {
    /// The picture's size in pixels; no side is 0.
    let source: PixelSize

    /// The view's size in points.
    let view: CGSize

    let mode: ScaleMode

    /// Whether left and right are exchanged, as people expect of a front camera.
    let isMirrored: Bool

    /// Points for one pixel.
    var scale: CGFloat {
        let across = view.width / CGFloat(source.width)
        let down = view.height / CGFloat(source.height)
        return mode == .fill ? max(across, down) : min(across, down)
    }

    /// Where the whole picture comes to; reaches beyond the view where it fills it.
    var picture: CGRect {
        let width = scale * CGFloat(source.width)
        let height = scale * CGFloat(source.height)
        return CGRect(x: (view.width - width) / 2, y: (view.height - height) / 2, width: width, height: height)
    }

    /// A box in the picture's pixels, in points of the view.
    func map(_ box: Box) -> CGRect {
        let place = picture
        let left = isMirrored ? CGFloat(source.width) - CGFloat(box.x2) : CGFloat(box.x1)
        return CGRect(
            x: place.minX + scale * left, y: place.minY + scale * CGFloat(box.y1),
            width: scale * CGFloat(box.x2 - box.x1), height: scale * CGFloat(box.y2 - box.y1))
    }
}
