/// What the last frames took.
struct FrameMeter {
    private static let window = 30

    private var frames: [(finishedNs: Int, inferenceNs: Int)] = []

    /// A frame was finished at `finishedNs`, of a clock that never goes back; its inference took `inferenceNs`.
    mutating func add(finishedNs: Int, inferenceNs: Int) {
        frames.append((finishedNs, inferenceNs))
        if frames.count > Self.window { frames.removeFirst() }
    }

    /// Over the last frames; nil before the second one.
    var framesPerSecond: Double? {
        guard let first = frames.first, let last = frames.last, last.finishedNs > first.finishedNs else { return nil }
        return Double(frames.count - 1) * 1e9 / Double(last.finishedNs - first.finishedNs)
    }

    /// Of the last frames, in nanoseconds; nil before the first one.
    var medianInferenceNs: Double? {
        if frames.isEmpty { return nil }
        let ordered = frames.map(\.inferenceNs).sorted()
        return (Double(ordered[(ordered.count - 1) / 2]) + Double(ordered[ordered.count / 2])) / 2
    }

    /// Forgets all frames: the camera or the model is another.
    mutating func reset() {
        frames = []
    }
}
