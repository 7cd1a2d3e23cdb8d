import XFormerCore

/// What has to be said of a model before anything that it says.
enum Banner {
    /// The warning for weights of that origin; nil where there is nothing to warn of.
    static func text(for source: Manifest.WeightsSource) -> String? {
        switch source {
        case .sample: Words.bannerSample
        case .untrained: Words.bannerUntrained
        case .checkpoint: nil
        }
    }
}
