/// A picture that fits the input.
public struct Preprocessed: Sendable {
    /// Of the input's size.
    public let image: RgbImage

    /// How it came there.
    public let fit: Fit

    /// A picture and its fit.
    public init(image: RgbImage, fit: Fit) {
        self.image = image
        self.fit = fit
    }
}

/// From a picture to the byte image that every artifact takes, bit for bit as the Python code does it
/// (docs/preprocessing.md). May be called from any thread.
public enum Preprocess {
    /// The grey that letterbox pads with.
    private static let pad: UInt8 = 114

    /// The largest intermediate picture; only one of an extreme shape needs more.
    private static let maxResizedPixels = 1 << 26

    /// The longest side that is resampled.
    private static let maxSide = 1 << 20

    private static let half: Int32 = 1 << (Taps.bits - 1)

    /// Turns a picture upright by its EXIF orientation, 1 to 8; any other number changes nothing.
    public static func upright(_ image: RgbImage, exifOrientation: Int) -> RgbImage {
        let width = image.width
        let last = width * image.height - 1
        // Where the upright picture's first pixel is stored, and the steps to the next one of its row and column.
        let (origin, across, down): (Int, Int, Int)
        switch exifOrientation {
        case 2: (origin, across, down) = (width - 1, -1, width)
        case 3: (origin, across, down) = (last, -1, -width)
        case 4: (origin, across, down) = (last - width + 1, 1, -width)
        case 5: (origin, across, down) = (0, width, 1)
        case 6: (origin, across, down) = (last - width + 1, -width, 1)
        case 7: (origin, across, down) = (last, -width, -1)
        case 8: (origin, across, down) = (width - 1, width, -1)
        default: return image
        }
        let isTurned = exifOrientation >= 5
        let size = PixelSize(
            width: isTurned ? image.height : width, height: isTurned ? width : image.height)
        let bytes = [UInt8](unsafeUninitializedCapacity: image.bytes.count) { upright, count in
            image.bytes.withUnsafeBufferPointer { stored in
                var to = 0
                for y in 0..<size.height {
                    var from = 3 * (origin + y * down)
                    for _ in 0..<size.width {
                        upright[to] = stored[from]
                        upright[to + 1] = stored[from + 1]
                        upright[to + 2] = stored[from + 2]
                        to += 3
                        from += 3 * across
                    }
                }
            }
            count = image.bytes.count
        }
        return RgbImage(checked: size, bytes: bytes)
    }

    /// Fits an upright picture to the input.
    ///
    /// - Throws: ``XFormerError/image(_:)`` for a picture without pixels, with more than 178,956,970, or too elongated
    ///   to be scaled; what the picture's rows throw.
    public static func preprocess(
        _ image: some RowSource, target: ImageSize, rule: ResizeRule
    ) throws -> Preprocessed {
        let source = PixelSize(width: image.width, height: image.height)
        try RgbImage.checkPixels(width: source.width, height: source.height)
        let fit = try Fit.of(source: source, target: target, rule: rule)
        let isTooLarge =
            fit.resized.width * fit.resized.height > maxResizedPixels
            || fit.resized.width * source.height > RgbImage.maxPixels
        if isTooLarge || max(source.width, source.height) > maxSide {
            throw XFormerError.image(
                "a picture of \(source.width)x\(source.height) is too elongated to be scaled to \(target)")
        }
        var canvas = [UInt8](repeating: rule == .letterbox ? pad : 0, count: 3 * target.width * target.height)
        try canvas.withUnsafeMutableBufferPointer { try resample(image, fit, onto: $0) }
        return Preprocessed(image: RgbImage(checked: fit.target, bytes: canvas), fit: fit)
    }

    /// Resamples the part of the picture that the input shows, into its place on the canvas.
    private static func resample(
        _ image: some RowSource, _ fit: Fit, onto canvas: UnsafeMutableBufferPointer<UInt8>
    ) throws {
        let left = max(fit.offset.x, 0)
        let top = max(fit.offset.y, 0)
        let right = min(fit.offset.x + fit.resized.width, fit.target.width)
        let bottom = min(fit.offset.y + fit.resized.height, fit.target.height)
        let columns = Taps.of(
            size: fit.source.width, resized: fit.resized.width, part: left - fit.offset.x..<right - fit.offset.x)
        let rows = Taps.of(
            size: fit.source.height, resized: fit.resized.height, part: top - fit.offset.y..<bottom - fit.offset.y)

        // The width first, then the height. Only as many narrowed rows are kept as one target row is made of.
        let length = 3 * (right - left)
        let source = Buffer<UInt8>(count: 3 * fit.source.width)
        let narrowed = Buffer<UInt8>(count: rows.most * length)
        let sums = Buffer<Int32>(count: length)
        func narrowedRow(_ row: Int) -> UnsafeMutableBufferPointer<UInt8> {
            let begin = row % rows.most * length
            return UnsafeMutableBufferPointer(rebasing: narrowed.memory[begin..<begin + length])
        }
        var next = 0
        for y in 0..<bottom - top {
            let first = rows.first[y]
            let count = rows.count(y)
            for row in max(next, first)..<max(next, first + count) {
                try image.row(row, into: source.memory)
                narrow(source.memory, by: columns, into: narrowedRow(row))
            }
            next = max(next, first + count)
            sums.memory.update(repeating: half)
            for tap in 0..<count {
                add(narrowedRow(first + tap), times: rows.weights[rows.start[y] + tap], to: sums.memory)
            }
            let begin = 3 * ((top + y) * fit.target.width + left)
            for i in 0..<length { canvas[begin + i] = sample(sums.memory[i]) }
        }
    }

    private static func narrow(
        _ source: UnsafeMutableBufferPointer<UInt8>, by columns: Taps, into narrowed: UnsafeMutableBufferPointer<UInt8>
    ) {
        columns.weights.withUnsafeBufferPointer { weights in
            var to = 0
            for x in columns.first.indices {
                var from = 3 * columns.first[x]
                var (red, green, blue) = (half, half, half)
                for tap in columns.start[x]..<columns.start[x + 1] {
                    let weight = weights[tap]
                    red &+= weight &* Int32(source[from])
                    green &+= weight &* Int32(source[from + 1])
                    blue &+= weight &* Int32(source[from + 2])
                    from += 3
                }
                narrowed[to] = sample(red)
                narrowed[to + 1] = sample(green)
                narrowed[to + 2] = sample(blue)
                to += 3
            }
        }
    }

    private static func add(
        _ row: UnsafeMutableBufferPointer<UInt8>, times weight: Int32, to sums: UnsafeMutableBufferPointer<Int32>
    ) {
        for i in sums.indices { sums[i] &+= weight &* Int32(row[i]) }
    }

    // Weights are not negative, so neither is a sum; but they may add up to a little more than one.
    private static func sample(_ sum: Int32) -> UInt8 { UInt8(min(sum >> Taps.bits, 255)) }

    /// Zeros that live as long as this.
    private final class Buffer<Element: FixedWidthInteger> {
        let memory: UnsafeMutableBufferPointer<Element>

        init(count: Int) {
            memory = .allocate(capacity: count)
            memory.initialize(repeating: 0)
        }

        deinit { memory.deallocate() }
    }
}
