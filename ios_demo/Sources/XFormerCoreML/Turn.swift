/// Where the pixels of an upright picture are in one that is stored turned or mirrored, by its EXIF orientation
/// (docs/preprocessing.md, section 1).
struct Turn {
    /// Of the upright picture.
    let width: Int
    let height: Int

    /// Where its first pixel is stored: column and row.
    private let first: (x: Int, y: Int)

    /// What one pixel to the right, and one down, is in the stored picture.
    private let right: (x: Int, y: Int)
    private let down: (x: Int, y: Int)

    /// `orientation` is 1 to 8; any other number changes nothing. `width` and `height` are as stored.
    init(orientation: UInt32, width: Int, height: Int) {
        let turned = (5...8).contains(orientation)
        let fromRight = [2, 3, 7, 8].contains(orientation)
        let fromBottom = [3, 4, 6, 7].contains(orientation)
        let across = fromRight ? -1 : 1
        let along = fromBottom ? -1 : 1
        self.width = turned ? height : width
        self.height = turned ? width : height
        first = (fromRight ? width - 1 : 0, fromBottom ? height - 1 : 0)
        right = turned ? (0, along) : (across, 0)
        down = turned ? (across, 0) : (0, along)
    }

    /// Where row `y` begins in the stored picture.
    func start(ofRow y: Int) -> (x: Int, y: Int) { (first.x + y * down.x, first.y + y * down.y) }

    /// What one pixel further in a row is there.
    var step: (x: Int, y: Int) { right }

    /// The same in a plane of bytes: where row `y` begins, and how far apart its pixels are.
    func path(ofRow y: Int, bytesPerPixel: Int, bytesPerRow: Int) -> (start: Int, step: Int) {
        let begin = start(ofRow: y)
        return (begin.y * bytesPerRow + begin.x * bytesPerPixel, right.y * bytesPerRow + right.x * bytesPerPixel)
    }
}
