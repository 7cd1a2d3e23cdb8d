import Foundation

// Figures and formulas are those of xformer_mobile/parity/compare.py.

/// What an artifact must keep.
public struct Tolerance: Sendable, Equatable {
    /// The largest difference as a share of the reference output's range, on the worst picture; infinite where it is
    /// not bounded.
    public var relativeMax = Double.infinity

    /// The smallest signal-to-noise ratio over all pictures together; negative infinity where it is not bounded.
    public var snrDb = -Double.infinity

    /// The share of the task's own results that must agree; 0 where it is not bounded.
    public var agreement = 0.0
}

/// One output over all pictures.
public struct OutputComparison: Sendable, Equatable {
    /// The output's.
    public let name: String

    /// The largest difference on the worst picture, in the output's own unit.
    public let maxAbs: Double

    /// The mean difference on the worst picture, in the output's own unit.
    public let meanAbs: Double

    /// `maxAbs` as a share of the reference's range over all pictures (of its largest magnitude where all values are
    /// the same).
    public let relativeMax: Double

    /// 10 log10 of the reference's power over the difference's, both over all pictures; infinite where they are equal.
    public let snrDb: Double

    /// `snrDb` of the worst picture.
    public let worstSnrDb: Double

    /// Of the angle between reference and found values; NaN where only one of them is zero.
    public let cosine: Double
}

/// How many of a task's results are the same.
public struct Agreement: Sendable, Equatable {
    /// Which results are compared.
    public let name: String

    /// 0..1.
    public let share: Double

    /// What else differs, by name.
    public let figures: [String: Double]
}

/// An engine against the reference.
public struct ParityResult: Sendable, Equatable {
    /// How many pictures were compared.
    public let images: Int

    /// By output, in the manifest's order.
    public let outputs: [OutputComparison]

    /// The task's own results.
    public let agreement: Agreement

    /// What had to be kept.
    public let tolerance: Tolerance

    /// One sentence for each bound that is not kept. NaN keeps none.
    public var misses: [String] { outputs.flatMap(misses) + agreementMisses }

    /// Whether every bound is kept.
    public var passed: Bool { misses.isEmpty }

    private func misses(of output: OutputComparison) -> [String] {
        var found: [String] = []
        if !(output.relativeMax <= tolerance.relativeMax) {
            found.append(
                "\(output.name) differs by \(scientific(output.relativeMax, digits: 2)) of its range, "
                    + "\(scientific(tolerance.relativeMax, digits: 0)) is allowed")
        }
        if !(output.snrDb >= tolerance.snrDb) {
            found.append(
                "\(output.name) has a signal-to-noise ratio of \(fixed(output.snrDb, digits: 1)) dB; "
                    + "\(fixed(tolerance.snrDb, digits: 0)) dB needed")
        }
        return found
    }

    private var agreementMisses: [String] {
        if agreement.share >= tolerance.agreement { return [] }
        let needed = percent(tolerance.agreement, digits: 2)
        return ["\(agreement.name) is \(percent(agreement.share, digits: 2)); \(needed) needed"]
    }
}

/// A number such as 1.61e-04, whatever the locale.
private func scientific(_ value: Double, digits: Int) -> String { String(format: "%.\(digits)e", value) }

/// Runs a bundle's golden inputs through an engine and compares its outputs with the reference model's: whether this
/// device computes what was exported.
public enum GoldenReplay {
    /// Compares on all golden inputs, one at a time. The tolerance is what the manifest states for `format`.
    ///
    /// `report` is called before each input and at the end, with the number that is done and that of all; what it
    /// throws is passed on. Does not close the engine.
    ///
    /// - Throws: ``XFormerError/bundle(_:)`` when the bundle has no golden inputs or no tolerance for the format, or a
    ///   file is broken; ``XFormerError/engine(_:)`` when the engine failed.
    public static func run(
        _ bundle: ModelBundle, format: ArtifactFormat, engine: any Engine, decode: PictureDecoder,
        report: (_ done: Int, _ total: Int) throws -> Void = { _, _ in }
    ) throws -> ParityResult {
        guard let stated = bundle.manifest.parity[format.rawValue] else {
            throw XFormerError.bundle(
                "the bundle states no tolerance for \(format.rawValue): it was exported with --no-verify; "
                    + "export it without")
        }
        let count = bundle.goldenCount
        guard count > 0 else {
            throw XFormerError.bundle("the bundle has no golden inputs; export it again")
        }
        let checked = engine.checked(by: bundle)
        var outputs = bundle.manifest.outputs.map { OutputFigures(name: $0.name) }
        var agreement = try agreementFigures(of: bundle)
        for index in 0..<count {
            try report(index, count)
            let golden = try bundle.golden(index, decode: decode)
            let found = try checked.run(golden.image)
            for number in outputs.indices { outputs[number].add(golden.outputs, found) }
            try agreement.add(golden.outputs, found)
        }
        try report(count, count)
        let open = Tolerance()
        return ParityResult(
            images: count, outputs: outputs.map { $0.result() }, agreement: agreement.result(),
            tolerance: Tolerance(
                relativeMax: stated.tolerance["relative_max"] ?? open.relativeMax,
                snrDb: stated.tolerance["snr_db"] ?? open.snrDb,
                agreement: stated.tolerance["agreement"] ?? open.agreement))
    }

    private static func agreementFigures(of bundle: ModelBundle) throws -> any AgreementFigures {
        let postprocess = try bundle.postprocess()
        switch bundle.task {
        case .classify: return TopClasses()
        case .segment: return ClassMaps(classes: bundle.labels.count)
        case .detect:
            let rule = postprocess.detection!  // a detector without one is refused by init
            return MatchedBoxes(rule: rule, labels: bundle.labels, imageSize: bundle.imageSize)
        }
    }
}

/// The larger one; NaN where one is NaN.
private func larger(_ a: Double, _ b: Double) -> Double { a.isNaN || b.isNaN ? .nan : max(a, b) }

/// The figures of one output, gathered picture by picture.
private struct OutputFigures {
    let name: String
    private var low = Double.infinity
    private var high = -Double.infinity
    private var maxAbs = 0.0
    private var meanAbs = 0.0
    private var signal = 0.0
    private var noise = 0.0
    private var worstSnrDb = Double.infinity
    private var product = 0.0
    private var foundPower = 0.0

    init(name: String) { self.name = name }

    mutating func add(_ reference: Outputs, _ found: Outputs) {
        // ModelBundle and CheckedEngine see to it that both have this output, of one shape.
        let (expected, values) = (reference[name]!.values, found[name]!.values)
        var (sumAbs, signalHere, noiseHere) = (0.0, 0.0, 0.0)
        for (one, other) in zip(expected, values) {
            let (a, b) = (Double(one), Double(other))
            let difference = abs(a - b)
            low = min(low, a)
            high = max(high, a)
            maxAbs = larger(maxAbs, difference)
            sumAbs += difference
            signalHere += a * a
            noiseHere += difference * difference
            product += a * b
            foundPower += b * b
        }
        meanAbs = larger(meanAbs, sumAbs / Double(expected.count))
        worstSnrDb = min(worstSnrDb, snrDb(signal: signalHere, noise: noiseHere))
        signal += signalHere
        noise += noiseHere
    }

    func result() -> OutputComparison {
        let span = high != low ? high - low : abs(high)
        let relativeMax = maxAbs == 0 ? 0 : span == 0 ? .infinity : maxAbs / span
        return OutputComparison(
            name: name, maxAbs: maxAbs, meanAbs: meanAbs, relativeMax: relativeMax,
            snrDb: snrDb(signal: signal, noise: noise), worstSnrDb: worstSnrDb, cosine: cosine())
    }

    private func snrDb(signal: Double, noise: Double) -> Double {
        if noise == 0 { return .infinity }
        return signal == 0 || !noise.isFinite ? -.infinity : 10 * log10(signal / noise)
    }

    /// 1 where the two are the same, also where both are zero; NaN where only one is.
    private func cosine() -> Double {
        if signal == 0 && foundPower == 0 { return 1 }
        return signal == 0 || foundPower == 0 ? .nan : product / (signal * foundPower).squareRoot()
    }
}

/// A task's own agreement, gathered picture by picture. Outputs are those that the manifest declares.
private protocol AgreementFigures {
    mutating func add(_ reference: Outputs, _ found: Outputs) throws

    func result() -> Agreement
}

/// Classes whose reference logits are nearer than this share of the range are a tie: either is right.
private let tieShare: Float = 1e-5

/// A box of one side may be this far below the score threshold on the other.
private let boxScoreSlack = 1e-3

/// Corners of the same box may differ by this share of the input's longer side.
private let boxCornerSlack = 0.01

/// How near the largest logit another may be to count as the largest too.
private func tie(among logits: [Float]) -> Float {
    tieShare * ((logits.max() ?? 0) - (logits.min() ?? 0))
}

/// The logits of one picture, which the manifest declares for this task.
private func logits(of outputs: Outputs) -> [Float] { outputs[logitsName]!.values }

/// The channel with the largest of the values `step` apart; of equal ones the lowest; the first NaN is the largest.
private func largest(of values: [Float], from start: Int, step: Int, channels: Int) -> Int {
    var best = 0
    for channel in 0..<channels {
        let value = values[start + channel * step]
        if value.isNaN { return channel }
        if value > values[start + best * step] { best = channel }
    }
    return best
}

/// Whether the picture's class is the same.
private struct TopClasses: AgreementFigures {
    private var pictures = 0
    private var same = 0
    private var shared = 0.0
    private var compared = 0

    mutating func add(_ reference: Outputs, _ found: Outputs) {
        let (a, b) = (logits(of: reference), logits(of: found))
        compared = min(5, a.count)
        let highest = a.max() ?? 0
        if a[largest(of: b, from: 0, step: 1, channels: b.count)] >= highest - tie(among: a) { same += 1 }
        let best = Set(fallingOrder(a).prefix(compared))
        shared += Double(best.intersection(fallingOrder(b).prefix(compared)).count) / Double(compared)
        pictures += 1
    }

    func result() -> Agreement {
        Agreement(
            name: "top-1 agreement", share: Double(same) / Double(pictures),
            figures: ["top-\(compared) in common": shared / Double(pictures)])
    }
}

/// Whether the classes of the pixels are the same.
private struct ClassMaps: AgreementFigures {
    private let classes: Int
    private var pixels = 0
    private var same = 0
    private var shared: [Int]
    private var ofReference: [Int]
    private var ofFound: [Int]

    init(classes: Int) {
        self.classes = classes
        shared = [Int](repeating: 0, count: classes)
        ofReference = shared
        ofFound = shared
    }

    mutating func add(_ reference: Outputs, _ found: Outputs) {
        let (a, b) = (logits(of: reference), logits(of: found))
        let slack = tie(among: a)
        let plane = a.count / classes
        for pixel in 0..<plane {
            let first = largest(of: a, from: pixel, step: plane, channels: classes)
            let second = largest(of: b, from: pixel, step: plane, channels: classes)
            if a[pixel + second * plane] >= a[pixel + first * plane] - slack { same += 1 }
            if first == second { shared[first] += 1 }
            ofReference[first] += 1
            ofFound[second] += 1
        }
        pixels += plane
    }

    func result() -> Agreement {
        let overlaps = (0..<classes).compactMap { index in
            let union = ofReference[index] + ofFound[index] - shared[index]
            return union > 0 ? Double(shared[index]) / Double(union) : nil
        }
        return Agreement(
            name: "pixel agreement", share: Double(same) / Double(pixels),
            figures: ["mean IoU of the class maps": mean(overlaps)])
    }
}

private func mean(_ values: [Double]) -> Double { values.reduce(0, +) / Double(values.count) }

/// Whether the boxes of either side are on the other side too.
private struct MatchedBoxes: AgreementFigures {
    private let rule: DetectionRule
    private let lenient: DetectionRule
    private let labels: [String]
    private let whole: Fit
    private let slack: Double
    private var total = 0
    private var overlaps: [Double] = []
    private var scoreDifference = 0.0

    init(rule: DetectionRule, labels: [String], imageSize: ImageSize) {
        self.rule = rule
        self.labels = labels
        var lenient = rule
        lenient.scoreThreshold = Float(max(0, Double(rule.scoreThreshold) - boxScoreSlack))
        self.lenient = lenient
        let size = PixelSize(width: imageSize.width, height: imageSize.height)
        whole = Fit(source: size, resized: size, offset: PixelPoint(x: 0, y: 0), target: size)
        slack = boxCornerSlack * Double(max(size.width, size.height))
    }

    mutating func add(_ reference: Outputs, _ found: Outputs) throws {
        for (side, other) in [(reference, found), (found, reference)] {
            var candidates = try detect(other, rule: lenient, labels: labels, fit: whole)
            for item in try detect(side, rule: rule, labels: labels, fit: whole) {
                total += 1
                guard let place = candidates.firstIndex(where: { isSame(item, $0) }) else { continue }
                let twin = candidates.remove(at: place)
                overlaps.append(overlap(item.box, twin.box))
                scoreDifference = max(scoreDifference, abs(Double(item.score) - Double(twin.score)))
            }
        }
    }

    private func isSame(_ a: Detection, _ b: Detection) -> Bool {
        a.index == b.index && zip(corners(of: a.box), corners(of: b.box)).allSatisfy { abs($0 - $1) <= slack }
    }

    private func corners(of box: Box) -> [Double] { [box.x1, box.y1, box.x2, box.y2].map(Double.init) }

    /// The intersection over union; 1 where both are empty.
    private func overlap(_ a: Box, _ b: Box) -> Double {
        let width = max(0, Double(min(a.x2, b.x2)) - Double(max(a.x1, b.x1)))
        let height = max(0, Double(min(a.y2, b.y2)) - Double(max(a.y1, b.y1)))
        let union = area(of: a) + area(of: b) - width * height
        return union > 0 ? width * height / union : 1
    }

    private func area(of box: Box) -> Double {
        (Double(box.x2) - Double(box.x1)) * (Double(box.y2) - Double(box.y1))
    }

    func result() -> Agreement {
        var figures: [String: Double] = [:]
        if let least = overlaps.min() {
            figures = [
                "mean IoU of matched boxes": mean(overlaps),
                "least IoU of matched boxes": least,
                "largest difference of their scores": scoreDifference,
            ]
        }
        return Agreement(
            name: "box agreement", share: total > 0 ? Double(overlaps.count) / Double(total) : 1, figures: figures)
    }
}
