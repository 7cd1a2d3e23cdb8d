import XCTest

// What the tests of the app on a device use of XCTest that Apple's has and Linux's lacks.

public protocol XCTMetric {}

public final class XCTClockMetric: XCTMetric {
    public init() {}
}

public final class XCTCPUMetric: XCTMetric {
    public init() {}
}

public final class XCTMemoryMetric: XCTMetric {
    public init() {}
}

public final class XCTMeasureOptions {
    public init() {}

    public var iterationCount = 5
}

public final class XCTAttachment {
    public enum Lifetime {
        case deleteOnSuccess
        case keepAlways
    }

    public init(contentsOfFile url: URL) {}

    public var name: String?

    public var lifetime = Lifetime.deleteOnSuccess
}

extension XCTestCase {
    public func measure(metrics: [any XCTMetric], options: XCTMeasureOptions, block: () -> Void) {}

    public func add(_ attachment: XCTAttachment) {}
}
