/// How a picture was fitted to the input; what postprocessing needs to go back. All in pixels.
///
/// The source is resized, and its top left corner comes to an offset in the input: negative where it was cropped,
/// positive where it was padded.
public struct Fit: Sendable, Hashable {
    /// The upright picture's size.
    public let source: PixelSize

    /// What it is scaled to.
    public let resized: PixelSize

    /// Where its top left corner comes to.
    public let offset: PixelPoint

    /// The input's size.
    public let target: PixelSize

    /// A fit that is known; ``of(source:target:rule:)`` finds one.
    public init(source: PixelSize, resized: PixelSize, offset: PixelPoint, target: PixelSize) {
        self.source = source
        self.resized = resized
        self.offset = offset
        self.target = target
    }

    /// Where a picture goes in the input, by integer arithmetic: section 2 of docs/preprocessing.md.
    ///
    /// - Throws: ``XFormerError/image(_:)`` when `source` has no pixels, or is too elongated to be scaled.
    public static func of(source: PixelSize, target: ImageSize, rule: ResizeRule) throws -> Fit {
        guard source.width >= 1, source.height >= 1 else {
            throw XFormerError.image("a picture of \(source.width)x\(source.height) has no pixels")
        }
        guard max(source.width, source.height) <= longest else { throw tooElongated(source) }
        let goal = PixelSize(width: target.width, height: target.height)
        switch rule {
        case .resize:
            return Fit(source: source, resized: goal, offset: PixelPoint(x: 0, y: 0), target: goal)
        case .letterbox:
            return try inside(source, goal)
        case .resizeShorterCenterCrop:
            return try covering(source, goal)
        }
    }

    /// The longest side; its products with a target's sides fit 64 bits.
    private static let longest = Int(Int32.max)

    private static func inside(_ source: PixelSize, _ goal: PixelSize) throws -> Fit {
        let widthLimits = goal.width * source.height <= goal.height * source.width
        let scaled = try scaled(source, to: goal, byWidth: widthLimits)
        let resized = PixelSize(width: min(scaled.width, goal.width), height: min(scaled.height, goal.height))
        let offset = PixelPoint(x: (goal.width - resized.width) / 2, y: (goal.height - resized.height) / 2)
        return Fit(source: source, resized: resized, offset: offset, target: goal)
    }

    private static func covering(_ source: PixelSize, _ goal: PixelSize) throws -> Fit {
        let cover = PixelSize(width: goal.width * 9 / 8, height: goal.height * 9 / 8)
        let widthIsShort = cover.width * source.height >= cover.height * source.width
        let scaled = try scaled(source, to: cover, byWidth: widthIsShort)
        let resized = PixelSize(width: max(scaled.width, goal.width), height: max(scaled.height, goal.height))
        let offset = PixelPoint(x: -((resized.width - goal.width) / 2), y: -((resized.height - goal.height) / 2))
        return Fit(source: source, resized: resized, offset: offset, target: goal)
    }

    /// `source` scaled so that its width, or else its height, becomes the goal's; rounded, halves up.
    private static func scaled(_ source: PixelSize, to goal: PixelSize, byWidth: Bool) throws -> PixelSize {
        let up = byWidth ? goal.width : goal.height
        let down = byWidth ? source.width : source.height
        func scaled(_ side: Int) -> Int { max(1, (2 * side * up + down) / (2 * down)) }
        let size = PixelSize(width: scaled(source.width), height: scaled(source.height))
        guard max(size.width, size.height) <= longest else { throw tooElongated(source) }
        return size
    }

    private static func tooElongated(_ source: PixelSize) -> XFormerError {
        .image("a picture of \(source.width)x\(source.height) is too elongated to be scaled")
    }
}
