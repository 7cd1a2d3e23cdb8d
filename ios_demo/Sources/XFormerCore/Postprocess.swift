import Foundation

// Sections 5 to 8 of docs/preprocessing.md. Multiplications and additions round one by one: Swift fuses none.

/// The size of an anchor.
public struct Anchor: Sendable, Hashable {
    /// In input pixels.
    public let width: Float

    /// In input pixels.
    public let height: Float

    /// An anchor of a size.
    public init(width: Float, height: Float) {
        self.width = width
        self.height = height
    }
}

/// What turns YOLOv3 maps (arXiv 1804.02767) into boxes.
public struct DetectionRule: Sendable, Equatable {
    /// By scale, finest first.
    public let anchors: [[Anchor]]

    /// The scales', in input pixels.
    public let strides: [Int]

    /// A class whose score reaches this is a candidate.
    public var scoreThreshold: Float

    /// Of two candidates of one class that overlap by more than this, the one with the higher score is kept.
    public var iouThreshold: Float

    /// At most so many boxes are kept.
    public var maxDetections: Int

    /// A rule for as many scales as there are strides.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when there are not as many strides as scales of anchors, or none.
    public init(
        anchors: [[Anchor]], strides: [Int], scoreThreshold: Float = 0.25, iouThreshold: Float = 0.45,
        maxDetections: Int = 100
    ) throws {
        guard !strides.isEmpty, strides.count == anchors.count else {
            throw XFormerError.usage(
                "\(strides.count) strides for \(anchors.count) scales of anchors; give one a scale")
        }
        self.anchors = anchors
        self.strides = strides
        self.scoreThreshold = scoreThreshold
        self.iouThreshold = iouThreshold
        self.maxDetections = maxDetections
    }
}

/// From raw outputs to a typed result.
public struct Postprocess: Sendable {
    /// What the model does.
    public let task: ModelTask

    /// The classes' names, in the order of their indices.
    public let labels: [String]

    /// How many classes a classification names at most.
    public let topK: Int

    /// What makes boxes of a detector's outputs.
    public let detection: DetectionRule?

    /// A color for each class of a class map.
    public let palette: [Rgb]

    /// `topK` is for classification, `detection` for detection, `palette` for segmentation.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` for a detector without `detection`, a `topK` below 1, or more labels than a
    ///   class map can tell apart, which are 65536.
    public init(
        task: ModelTask, labels: [String], topK: Int = 5, detection: DetectionRule? = nil, palette: [Rgb] = []
    ) throws {
        if task == .detect && detection == nil {
            throw XFormerError.usage("postprocessing of boxes needs a DetectionRule; give detection")
        }
        guard topK >= 1 else { throw XFormerError.usage("topK \(topK) is not valid; valid: from 1 on") }
        guard task != .segment || labels.count <= Int(UInt16.max) + 1 else {
            throw XFormerError.usage("\(labels.count) classes are too many for a class map; 65536 are the most")
        }
        self.task = task
        self.labels = labels
        self.topK = topK
        self.detection = detection
        self.palette = palette
    }

    /// The result for one picture: classes, boxes in source pixels, or a class map of the source's size.
    ///
    /// - Throws: ``XFormerError/bundle(_:)`` when an output is missing, has another shape, or is not finite.
    public func callAsFunction(_ outputs: Outputs, fit: Fit) throws -> Prediction {
        switch task {
        case .classify:
            return .classifications(try classify(outputs))
        case .detect:
            try checkFinite(outputs)
            let rule = detection!  // a detector without one is refused by init
            return .detections(try detect(outputs, rule: rule, labels: labels, fit: fit))
        case .segment:
            return .classMap(try segment(outputs, at: fit.source))
        }
    }

    /// The class map at a size other than the source's, such as a preview's.
    ///
    /// - Throws: ``XFormerError/bundle(_:)`` when the output is missing, has another shape, or is not finite;
    ///   ``XFormerError/usage(_:)`` when the task is another, or `size` has no pixels or more than 178,956,970.
    public func segment(_ outputs: Outputs, at size: PixelSize) throws -> ClassMap {
        guard task == .segment else {
            throw XFormerError.usage("class maps are of the task segment, not \(task.rawValue)")
        }
        guard let pixels = volume(of: [size.height, size.width]), pixels <= RgbImage.maxPixels else {
            throw XFormerError.usage(
                "a class map of \(size.width)x\(size.height) can't be made; its pixels must be from 1 to "
                    + "\(RgbImage.maxPixels)")
        }
        try checkFinite(outputs)
        return try classMap(of: output(of: outputs, named: logitsName, rank: 4, channels: labels.count), at: size)
    }

    /// One color a class, far apart for neighbours: the bit-reversal colormap of PASCAL VOC.
    public static func defaultPalette(classes: Int) -> [Rgb] {
        (0..<max(0, classes)).map { index in
            func channel(_ number: Int) -> UInt8 {
                var value: UInt8 = 0
                for bit in 0..<8 where (index >> (3 * bit + number)) & 1 == 1 { value |= 0x80 >> UInt8(bit) }
                return value
            }
            return Rgb(red: channel(0), green: channel(1), blue: channel(2))
        }
    }

    private func classify(_ outputs: Outputs) throws -> [Classification] {
        try checkFinite(outputs)
        let logits = try output(of: outputs, named: logitsName, rank: 2, channels: labels.count).values
        let order = fallingOrder(logits)
        let highest = Double(logits[order[0]])
        let exponentials = logits.map { exp(Double($0) - highest) }
        let total = exponentials.reduce(0, +)
        return order.prefix(topK).map {
            Classification(index: $0, label: labels[$0], probability: exponentials[$0] / total)
        }
    }
}

let logitsName = "logits"

private func checkFinite(_ outputs: Outputs) throws {
    for (name, tensor) in outputs where !tensor.isFinite {
        throw XFormerError.bundle("the artifact returned values that are NaN or infinite in '\(name)'")
    }
}

/// The output of that name: (1, channels, ...) and of that rank.
private func output(of outputs: Outputs, named name: String, rank: Int, channels: Int) throws -> Tensor {
    guard let tensor = outputs[name] else {
        let found = outputs.isEmpty ? "nothing" : outputs.keys.sorted().joined(separator: ", ")
        throw XFormerError.bundle("the artifact returned \(found); it has no output '\(name)'")
    }
    guard tensor.shape.count == rank, tensor.shape[0] == 1, tensor.shape[1] == channels else {
        throw XFormerError.bundle(
            "the artifact returned '\(name)' of \(describe(tensor.shape)); its rank must be \(rank), and it must "
                + "begin with (1, \(channels))")
    }
    return tensor
}

/// The indices of the values, the largest first; of equal ones, the lower index first. NaN has no place.
func fallingOrder(_ values: [Float]) -> [Int] {
    // Sorted as numbers of 64 bits: above, what falls as the value rises; below, the index.
    var keys = values.enumerated().map { index, value in
        let bits = (value + 0).bitPattern  // -0 becomes 0: they are equal
        let falling = bits >> 31 == 0 ? ~(bits | 1 << 31) : bits
        return UInt64(falling) << 32 | UInt64(index)
    }
    keys.sort()
    return keys.map { Int($0 & 0xFFFF_FFFF) }
}

// MARK: - Boxes

/// tw and th are clamped to this before exp, so that a wild logit is a large box and not an overflow.
private let maxLogScale: Float = 10

/// A class of a box that reaches the score threshold. There may be a million.
private struct Candidate {
    let box: Box
    let score: Float
    let index: Int32
}

/// Decodes the maps, suppresses overlaps. Boxes are in pixels of the fit's source.
func detect(_ outputs: Outputs, rule: DetectionRule, labels: [String], fit: Fit) throws -> [Detection] {
    var candidates: [Candidate] = []
    for (stride, anchors) in zip(rule.strides, rule.anchors) {
        let map = try output(
            of: outputs, named: "stride\(stride)", rank: 4, channels: anchors.count * (5 + labels.count))
        for (number, anchor) in anchors.enumerated() {
            collect(
                BoxMap(map: map, number: number, anchor: anchor, stride: stride, classes: labels.count, fit: fit),
                threshold: rule.scoreThreshold, into: &candidates)
        }
    }
    let order = fallingOrder(candidates.map(\.score))
    return suppress(candidates, in: order, rule: rule, classes: labels.count).map { candidate in
        let index = Int(candidate.index)
        return Detection(index: index, label: labels[index], score: candidate.score, box: candidate.box)
    }
}

/// What one anchor of a scale says, (5 + classes, H, W) of its map.
private struct BoxMap {
    let values: ArraySlice<Float>
    let height: Int
    let width: Int
    let classes: Int
    let anchor: Anchor
    let stride: Float
    let fit: Fit
    let scaleX: Float
    let scaleY: Float

    /// `map` is (1, anchors * (5 + classes), H, W); `number` is that of the anchor.
    init(map: Tensor, number: Int, anchor: Anchor, stride: Int, classes: Int, fit: Fit) {
        height = map.shape[2]
        width = map.shape[3]
        let size = (5 + classes) * height * width
        values = map.values[number * size..<(number + 1) * size]
        self.classes = classes
        self.anchor = anchor
        self.stride = Float(stride)
        self.fit = fit
        scaleX = Float(fit.source.width) / Float(fit.resized.width)
        scaleY = Float(fit.source.height) / Float(fit.resized.height)
    }

    func value(_ channel: Int, at cell: Int) -> Float { values[values.startIndex + channel * height * width + cell] }

    func box(at cell: Int) -> Box {
        let centreX = (sigmoid(value(0, at: cell)) + Float(cell % width)) * stride
        let centreY = (sigmoid(value(1, at: cell)) + Float(cell / width)) * stride
        let halfWidth = anchor.width * exp(min(value(2, at: cell), maxLogScale)) / 2
        let halfHeight = anchor.height * exp(min(value(3, at: cell), maxLogScale)) / 2
        return Box(
            x1: sourceX(centreX - halfWidth), y1: sourceY(centreY - halfHeight), x2: sourceX(centreX + halfWidth),
            y2: sourceY(centreY + halfHeight))
    }

    private func sourceX(_ x: Float) -> Float {
        clipped((x - Float(fit.offset.x)) * scaleX, to: Float(fit.source.width))
    }

    private func sourceY(_ y: Float) -> Float {
        clipped((y - Float(fit.offset.y)) * scaleY, to: Float(fit.source.height))
    }

    private func clipped(_ place: Float, to side: Float) -> Float { min(max(place, 0), side) }
}

/// Adds the candidates of one anchor in the order row, column, class.
private func collect(_ map: BoxMap, threshold: Float, into candidates: inout [Candidate]) {
    for cell in 0..<map.height * map.width {
        let objectness = sigmoid(map.value(4, at: cell))
        // No class has a probability above 1, so none would reach the threshold.
        guard objectness >= threshold else { continue }
        var decoded: Box?
        for index in 0..<map.classes {
            let score = objectness * sigmoid(map.value(5 + index, at: cell))
            guard score >= threshold else { continue }
            let box = decoded ?? map.box(at: cell)
            decoded = box
            // Without area, which a box outside the picture has not either once it is clipped.
            guard box.x2 > box.x1, box.y2 > box.y1 else { break }
            candidates.append(Candidate(box: box, score: score, index: Int32(index)))
        }
    }
}

private func sigmoid(_ x: Float) -> Float {
    let decay = exp(-abs(x))
    return (x >= 0 ? 1 : decay) / (1 + decay)
}

/// Greedy class-wise non-maximum suppression; returns the kept candidates in order.
private func suppress(
    _ candidates: [Candidate], in order: [Int], rule: DetectionRule, classes: Int
) -> [Candidate] {
    var kept: [Candidate] = []
    var boxesByClass = [[Box]](repeating: [], count: classes)
    for place in order {
        if kept.count >= rule.maxDetections { break }
        let candidate = candidates[place]
        let index = Int(candidate.index)
        if boxesByClass[index].contains(where: { overlaps($0, candidate.box, by: rule.iouThreshold) }) { continue }
        kept.append(candidate)
        boxesByClass[index].append(candidate.box)
    }
    return kept
}

private func overlaps(_ a: Box, _ b: Box, by threshold: Float) -> Bool {
    let width = max(min(a.x2, b.x2) - max(a.x1, b.x1), 0)
    let height = max(min(a.y2, b.y2) - max(a.y1, b.y1), 0)
    let overlap = width * height
    let union = area(a) + area(b) - overlap
    return overlap > threshold * union
}

private func area(_ box: Box) -> Float { (box.x2 - box.x1) * (box.y2 - box.y1) }

// MARK: - Class maps

extension Postprocess {
    /// The class of the largest logit at each pixel; of equal ones, the lowest index. `logits` are (1, classes, h, w).
    ///
    /// Row by row, so that only one row of all classes is in memory: the rows of the logits are interpolated first,
    /// then the columns.
    private func classMap(of logits: Tensor, at size: PixelSize) throws -> ClassMap {
        let (classes, rows, columns) = (logits.shape[1], logits.shape[2], logits.shape[3])
        let down = interpolation(of: rows, to: size.height)
        let across = interpolation(of: columns, to: size.width)
        var row = [Float](repeating: 0, count: columns * classes)  // all classes of a column lie together
        let map = [UInt16](unsafeUninitializedCapacity: size.height * size.width) { map, count in
            logits.values.withUnsafeBufferPointer { values in
                row.withUnsafeMutableBufferPointer { row in
                    for (y, tap) in down.enumerated() {
                        for index in 0..<classes {
                            let upper = (index * rows + tap.first) * columns
                            let lower = (index * rows + tap.second) * columns
                            for column in 0..<columns {
                                let above = values[upper + column]
                                row[column * classes + index] = above + (values[lower + column] - above) * tap.weight
                            }
                        }
                        for (x, tap) in across.enumerated() {
                            let left = row[tap.first * classes..<(tap.first + 1) * classes]
                            let right = row[tap.second * classes..<(tap.second + 1) * classes]
                            map[y * size.width + x] = largest(
                                between: UnsafeBufferPointer(rebasing: left),
                                and: UnsafeBufferPointer(rebasing: right), at: tap.weight)
                        }
                    }
                }
            }
            count = size.height * size.width
        }
        return try ClassMap(width: size.width, height: size.height, classes: map, labels: labels)
    }
}

/// The class of the largest logit at a place between two columns.
private func largest(
    between left: UnsafeBufferPointer<Float>, and right: UnsafeBufferPointer<Float>, at weight: Float
) -> UInt16 {
    var best = 0
    var highest = left[0] + (right[0] - left[0]) * weight
    for index in 1..<left.count {
        let value = left[index] + (right[index] - left[index]) * weight
        if value > highest {
            highest = value
            best = index
        }
    }
    return UInt16(best)
}

/// The two samples around a position, and the weight of the second.
private struct Tap {
    let first: Int
    let second: Int
    let weight: Float
}

/// For each of `target` positions, its place among `size` samples.
private func interpolation(of size: Int, to target: Int) -> [Tap] {
    (0..<target).map { index in
        let centre = (Double(index) + 0.5) * (Double(size) / Double(target)) - 0.5
        let position = min(max(centre, 0), Double(size - 1))
        let first = Int(position)  // not negative, so this is its floor
        return Tap(first: first, second: min(first + 1, size - 1), weight: Float(position - Double(first)))
    }
}
