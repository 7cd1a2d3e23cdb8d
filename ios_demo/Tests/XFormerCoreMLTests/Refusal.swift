import XCTest
import XFormerCore

/// The message of what `block` refuses, one line of moderate length; fails where it refuses nothing, or something else
/// than a case that `kind` makes.
func refusal<Result>(
    _ kind: (String) -> XFormerError, file: StaticString = #filePath, line: UInt = #line,
    _ block: () async throws -> Result
) async -> String {
    do {
        _ = try await block()
        XCTFail("nothing is refused", file: file, line: line)
    } catch let error as XFormerError {
        return check(error, kind, file, line)
    } catch {
        XCTFail("\(error)", file: file, line: line)
    }
    return ""
}

/// The same of a block that does not wait.
func refusal<Result>(
    _ kind: (String) -> XFormerError, file: StaticString = #filePath, line: UInt = #line,
    _ block: () throws -> Result
) -> String {
    do {
        _ = try block()
        XCTFail("nothing is refused", file: file, line: line)
    } catch let error as XFormerError {
        return check(error, kind, file, line)
    } catch {
        XCTFail("\(error)", file: file, line: line)
    }
    return ""
}

private func check(
    _ error: XFormerError, _ kind: (String) -> XFormerError, _ file: StaticString, _ line: UInt
) -> String {
    XCTAssertEqual(error, kind(error.message), file: file, line: line)
    let isOneLine = !error.message.contains { $0.isNewline } && (1..<1000).contains(error.message.count)
    XCTAssertTrue(isOneLine, "not one line: \(error)", file: file, line: line)
    return error.message
}
