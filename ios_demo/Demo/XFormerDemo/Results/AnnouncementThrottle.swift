/// Lets VoiceOver speak of live results now and then only: what has not changed is not said again, and nothing within
/// `quietNs` of the last announcement.
struct AnnouncementThrottle {
    /// In nanoseconds.
    let quietNs: Int

    private var last: (text: String, ns: Int)?

    /// Nothing was said yet.
    init(quietNs: Int) {
        self.quietNs = quietNs
    }

    /// The text, if it is to be announced now; nil otherwise. `ns` is of a clock that never goes back.
    mutating func next(_ text: String, at ns: Int) -> String? {
        if let last, text == last.text || ns < last.ns + quietNs { return nil }
        last = (text, ns)
        return text
    }

    /// The next text is announced, whatever it is.
    mutating func reset() {
        last = nil
    }
}
