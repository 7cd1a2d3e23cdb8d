#if canImport(os)
import os
#endif

/// Marks predictions for Instruments; free where nobody records.
enum Signposts {
    #if canImport(os)
    private static let signposter = OSSignposter(
        logHandle: OSLog(subsystem: "xformer-mobile", category: .pointsOfInterest))
    #endif

    /// Runs `body` as an interval of this name.
    static func interval<Result>(_ name: StaticString, _ body: () throws -> Result) rethrows -> Result {
        #if canImport(os)
        try signposter.withIntervalSignpost(name, around: body)
        #else
        try body()
        #endif
    }
}
