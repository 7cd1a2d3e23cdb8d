import XFormerCoreML

/// What the user has chosen to run.
struct Choice: Hashable, Sendable {
    /// A bundle's name; nil: the first one.
    var bundle: String?

    /// What Core ML may compute on.
    var units: ComputeUnits = .all

    /// As it is stored: words by name.
    var words: [String: String] {
        var words = [Self.unitsKey: units.rawValue]
        words[Self.bundleKey] = bundle
        return words
    }

    /// The usual choice, or that of a bundle.
    init(bundle: String? = nil, units: ComputeUnits = .all) {
        self.bundle = bundle
        self.units = units
    }

    /// Of what was stored, perhaps by another version of the app: what can't be read is as if it were not there.
    init(stored: [String: Any]) {
        bundle = (stored[Self.bundleKey] as? String).flatMap { BundleName.isValid($0) ? $0 : nil }
        units = (stored[Self.unitsKey] as? String).flatMap(ComputeUnits.init) ?? .all
    }

    private static let bundleKey = "bundle"
    private static let unitsKey = "units"
}
