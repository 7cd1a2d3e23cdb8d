import Dispatch
import XCTest

@testable import XFormerCoreML

final class WorkerTests: XCTestCase {
    func testWorkIsDoneInTheOrderOfTheCalls() async throws {
        let worker = Worker()
        let gate = Gate()
        async let first = worker.run { _ in
            gate.enter()
            return 1
        }
        await gate.isEntered()
        async let second = worker.run { _ in 2 }
        gate.open()
        let found = try await [first, second]
        XCTAssertEqual(found, [1, 2])
    }

    func testWhatIsCancelledWhileItWaitsIsNotBegun() async throws {
        let worker = Worker()
        let gate = Gate()
        let first = Task {
            try await worker.run { _ in gate.enter() }
        }
        await gate.isEntered()
        let second = Task {
            try await worker.run { _ in XCTFail("it was begun") }
        }
        second.cancel()
        gate.open()
        try await first.value
        let result = await second.result
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
    }

    func testWhatHasBegunIsToldAtItsCheckpoint() async throws {
        let worker = Worker()
        let gate = Gate()
        let work = Task {
            try await worker.run { checkpoint in
                try checkpoint()
                gate.enter()
                try checkpoint()
                XCTFail("it was not told")
            }
        }
        await gate.isEntered()
        work.cancel()
        gate.open()
        let result = await work.result
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
    }

    func testTheLastIsDoneInACancelledTaskToo() async {
        let worker = Worker()
        let gate = Gate()
        let closing = Task { await worker.finish { gate.open() } }
        closing.cancel()
        await closing.value
        XCTAssertTrue(gate.isOpen)
    }
}

/// Holds a run until it is opened.
final class Gate: Sendable {
    private let entered = DispatchSemaphore(value: 0)
    private let opened = DispatchSemaphore(value: 0)

    func enter() {
        entered.signal()
        opened.wait()
    }

    func open() { opened.signal() }

    /// Whether it has been opened and nobody has gone through.
    var isOpen: Bool { opened.wait(timeout: .now()) == .success }

    func isEntered() async {
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async { [entered] in
                entered.wait()
                continuation.resume()
            }
        }
    }
}
