import TestSupport
import XCTest
import XFormerCore

@testable import XFormerCoreML

final class DeviceInfoTests: XCTestCase {
    func testTheMachineIsTheSameForTheSameInstallation() throws {
        try withTemporaryDirectory { directory in
            let own = directory.appendingPathComponent("a/b")
            let first = try DeviceInfo(directory: own).machine()
            XCTAssertEqual(try DeviceInfo(directory: own).machine().id, first.id)
            XCTAssertNotEqual(try DeviceInfo(directory: directory.appendingPathComponent("c")).machine().id, first.id)
            XCTAssertEqual(first.id.count, 16)
            XCTAssertNotEqual(first.boot, first.id)
            XCTAssertGreaterThan(try XCTUnwrap(first.cpus), 0)
            XCTAssertGreaterThan(try XCTUnwrap(first.memoryBytes), 1 << 20)
            XCTAssertFalse(try XCTUnwrap(first.release).isEmpty)
            XCTAssertNotNil(first.architecture)
            XCTAssertNotNil(first.loadAverage)
        }
    }

    func testADirectoryThatCannotBeWrittenIsNoError() throws {
        let machine = try DeviceInfo(directory: URL(fileURLWithPath: "/dev/null/nothing")).machine()
        XCTAssertEqual(machine.id.count, 16)
    }

    func testMemoryAndPreemptions() throws {
        let info = DeviceInfo()
        let resident = try XCTUnwrap(info.residentBytes())
        XCTAssertGreaterThan(resident, 1 << 20)
        XCTAssertGreaterThanOrEqual(try XCTUnwrap(info.peakResidentBytes()), resident / 2)
        XCTAssertGreaterThanOrEqual(try XCTUnwrap(info.preemptions()), 0)
    }
}
