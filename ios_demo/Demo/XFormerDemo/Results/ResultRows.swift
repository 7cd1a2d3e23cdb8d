import XFormerCore

/// One line of the list below a picture.
struct ResultRow: Equatable, Sendable {
    let label: String

    /// 0..1: a probability, a score, or the share of the picture.
    let share: Double

    /// Of the box or of the pixels; nil where nothing is drawn in a color.
    let color: Rgb?
}

/// The list below a picture, best first.
struct ResultRows: Equatable, Sendable {
    /// At most five.
    let rows: [ResultRow]

    /// How many results are left out.
    let others: Int

    /// The share 0..1 of the picture that those cover; 0 but for class maps.
    let othersShare: Double

    private static let most = 5

    /// A class that covers less of the picture gets no line of its own.
    private static let leastShare = 0.01

    /// Less than this would be written as 0 %.
    private static let leastOthers = 0.005

    /// The lines of a result: the five most probable classes, the five best boxes, or the legend of a class map: at
    /// most five classes that cover a percent and more. `palette` is the class map's, one color for each class.
    init(_ prediction: Prediction, palette: [Rgb]) {
        switch prediction {
        case .classifications(let found):
            (rows, others, othersShare) = Self.cut(
                found.map { ResultRow(label: $0.label, share: $0.probability, color: nil) })
        case .detections(let found):
            (rows, others, othersShare) = Self.cut(
                found.map {
                    ResultRow(label: $0.label, share: Double($0.score), color: ClassColors.color(of: $0.index))
                })
        case .classMap(let map):
            let present = map.shares()
            let shown = present.filter { $0.share >= Self.leastShare }.prefix(Self.most)
            let rest = present.dropFirst(shown.count)
            let share = rest.reduce(0) { $0 + $1.share }
            let isWorthALine = share >= Self.leastOthers
            rows = shown.map { ResultRow(label: $0.label, share: $0.share, color: palette[$0.index]) }
            others = isWorthALine ? rest.count : 0
            othersShare = isWorthALine ? share : 0
        }
    }

    private static func cut(_ all: [ResultRow]) -> ([ResultRow], Int, Double) {
        (Array(all.prefix(most)), max(0, all.count - most), 0)
    }

    /// The line for what is left out; nil where nothing is.
    var othersText: String? {
        if others == 0 { return nil }
        if othersShare == 0 { return Words.resultOthers(others) }
        return Words.resultOtherClasses(others, share: Figures.percent(othersShare))
    }
}

extension ResultRow {
    /// "tabby cat, 91 %".
    var text: String { Words.resultRow(label, share: Figures.percent(share)) }
}
