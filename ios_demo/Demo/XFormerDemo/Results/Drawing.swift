import CoreGraphics
import XFormerCore

/// What is drawn over a picture. `CGImage` does not change, and so may go from one thread to another.
struct Drawing: @unchecked Sendable {
    /// The size of the upright picture; boxes are in its pixels.
    let source: PixelSize

    /// Whether the picture is shown with left and right exchanged.
    let isMirrored: Bool

    let prediction: Prediction

    /// A class map's colors, one for each class.
    let palette: [Rgb]

    /// The class map in colors; covers the whole picture. Nil but for class maps.
    let classMap: CGImage?

    /// A drawing of a prediction; makes a class map's colors, which takes a while.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when there are fewer colors than classes.
    init(source: PixelSize, isMirrored: Bool, prediction: Prediction, palette: [Rgb]) throws {
        self.source = source
        self.isMirrored = isMirrored
        self.prediction = prediction
        self.palette = palette
        if case .classMap(let map) = prediction {
            classMap = try ColoredMap(map, palette: palette).image()
        } else {
            classMap = nil
        }
    }
}
