import XFormerCore

/// Results in a sentence, for VoiceOver.
enum ResultText {
    private static let mostClasses = 3
    private static let leastShare = 0.05

    /// The most probable class; how many objects of which classes; or the classes that cover most of the picture.
    static func sentence(for prediction: Prediction) -> String {
        switch prediction {
        case .classifications(let found):
            guard let best = found.first else { return Words.resultNothing }
            return Words.resultClass(best.label, share: Figures.percent(best.probability))
        case .detections(let found):
            return objects(found.map(\.label))
        case .classMap(let map):
            return map.shares()
                .filter { $0.share >= leastShare }
                .prefix(mostClasses)
                .map { Words.resultShare($0.label, share: Figures.percent($0.share)) }
                .joined(separator: Words.separator)
        }
    }

    private static func objects(_ labels: [String]) -> String {
        if labels.isEmpty { return Words.resultNoObjects }
        var counts: [String: Int] = [:]
        var order: [String] = []
        for label in labels {
            if counts[label] == nil { order.append(label) }
            counts[label, default: 0] += 1
        }
        let parts = order.map { label in
            let count = counts[label, default: 0]
            return count == 1 ? label : Words.resultSeveral(label, count: count.description)
        }
        return Words.resultObjects(labels.count, list: parts.joined(separator: Words.separator))
    }
}
