import XCTest
import XFormerCore

/// The kinds of ``XFormerError``.
enum ErrorKind {
    case bundle, image, engine, usage, benchmark

    init(_ error: XFormerError) {
        switch error {
        case .bundle: self = .bundle
        case .image: self = .image
        case .engine: self = .engine
        case .usage: self = .usage
        case .benchmark: self = .benchmark
        }
    }
}

/// The message of a refusal of that kind, which is one line of moderate length; empty, with a failure, where there is
/// none.
func refusal<Result>(
    _ kind: ErrorKind, _ what: String = "", file: StaticString = #filePath, line: UInt = #line,
    _ block: () throws -> Result
) -> String {
    do {
        _ = try block()
        XCTFail("\(what): nothing is refused", file: file, line: line)
    } catch let error as XFormerError {
        XCTAssertEqual(ErrorKind(error), kind, "\(what): \(error)", file: file, line: line)
        let isOneLine = !error.message.contains { $0.isNewline } && (1..<1000).contains(error.message.count)
        XCTAssertTrue(isOneLine, "\(what): not one line: \(error)", file: file, line: line)
        return error.message
    } catch {
        XCTFail("\(what): \(error)", file: file, line: line)
    }
    return ""
}
