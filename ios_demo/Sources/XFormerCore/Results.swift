/// What a model found in a picture.
public enum Prediction: Sendable, Equatable {
    /// The most probable classes, the most probable first.
    case classifications([Classification])

    /// The objects in the picture, the highest score first.
    case detections([Detection])

    /// A class for each pixel.
    case classMap(ClassMap)
}

/// A class of the picture.
public struct Classification: Sendable, Hashable {
    /// The class's index.
    public let index: Int

    /// The class's name.
    public let label: String

    /// 0..1.
    public let probability: Double

    /// A class with its probability.
    public init(index: Int, label: String, probability: Double) {
        self.index = index
        self.label = label
        self.probability = probability
    }
}

/// Corners in pixels of the source picture, x to the right and y down, clipped to the picture.
public struct Box: Sendable, Hashable {
    /// The left side.
    public let x1: Float

    /// The top.
    public let y1: Float

    /// The right side.
    public let x2: Float

    /// The bottom.
    public let y2: Float

    /// A box of corners.
    public init(x1: Float, y1: Float, x2: Float, y2: Float) {
        self.x1 = x1
        self.y1 = y1
        self.x2 = x2
        self.y2 = y2
    }
}

/// One object in the picture.
public struct Detection: Sendable, Hashable {
    /// The class's index.
    public let index: Int

    /// The class's name.
    public let label: String

    /// Objectness times class probability, 0..1.
    public let score: Float

    /// Where it is.
    public let box: Box

    /// An object of a class at a place.
    public init(index: Int, label: String, score: Float, box: Box) {
        self.index = index
        self.label = label
        self.score = score
        self.box = box
    }
}

/// How much of the picture is of one class.
public struct ClassShare: Sendable, Hashable {
    /// The class's index.
    public let index: Int

    /// The class's name.
    public let label: String

    /// Of the picture's pixels, 0..1.
    public let share: Double

    /// A class's share.
    public init(index: Int, label: String, share: Double) {
        self.index = index
        self.label = label
        self.share = share
    }
}

/// A class for each pixel.
public struct ClassMap: Sendable, Equatable {
    /// In pixels.
    public let width: Int

    /// In pixels.
    public let height: Int

    /// Indices into ``labels``: `uint16[height, width]`, row-major, rows from the top.
    public let classes: [UInt16]

    /// The classes' names.
    public let labels: [String]

    /// A map of classes.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when `classes` has another size, or a class that `labels` does not name.
    public init(width: Int, height: Int, classes: [UInt16], labels: [String]) throws {
        guard volume(of: [height, width]) == classes.count else {
            throw XFormerError.usage("got \(classes.count) classes for a map of \(width)x\(height)")
        }
        guard Int(classes.max() ?? 0) < labels.count else {
            throw XFormerError.usage("a class map has a class that none of its \(labels.count) labels names")
        }
        self.width = width
        self.height = height
        self.classes = classes
        self.labels = labels
    }

    /// The class at a pixel inside the map, an index into ``labels``. A pixel outside is a programming error.
    public subscript(x x: Int, y y: Int) -> Int {
        precondition((0..<width).contains(x) && (0..<height).contains(y), "(\(x), \(y)) is outside \(width)x\(height)")
        return Int(classes[y * width + x])
    }

    /// Each class that occurs, the largest first; of equal ones, the lower index.
    public func shares() -> [ClassShare] {
        var counts = [Int](repeating: 0, count: labels.count)
        for index in classes { counts[Int(index)] += 1 }
        return counts.indices
            .filter { counts[$0] > 0 }
            .sorted { (counts[$1], $0) < (counts[$0], $1) }
            .map { ClassShare(index: $0, label: labels[$0], share: Double(counts[$0]) / Double(classes.count)) }
    }

    /// The map in colors, one for each class: `uint8[height, width, 4]`, red, green, blue, `alpha`; not premultiplied.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when there are fewer colors than classes.
    public func rgba(palette: [Rgb], alpha: UInt8 = 255) throws -> [UInt8] {
        guard palette.count >= labels.count else {
            throw XFormerError.usage(
                "\(palette.count) colors for \(labels.count) classes; give one color a class")
        }
        return [UInt8](unsafeUninitializedCapacity: 4 * classes.count) { pixels, count in
            for (place, index) in classes.enumerated() {
                let color = palette[Int(index)]
                pixels[4 * place] = color.red
                pixels[4 * place + 1] = color.green
                pixels[4 * place + 2] = color.blue
                pixels[4 * place + 3] = alpha
            }
            count = 4 * classes.count
        }
    }
}
