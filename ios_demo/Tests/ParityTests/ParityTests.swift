import OnnxRuntime
import TestSupport
import XCTest
import XFormerCore

/// Every bundle against what Python makes of the same pictures. Writes .build/parity.json and .md.
final class ParityTests: XCTestCase {
    func testPythonMakesTheSameOfTheSamePictures() throws {
        var rows: [ParityRow] = []
        for name in Fixtures.names {
            let formats = try ModelBundle.open(Fixtures.directory(name)).formats.filter { [.onnx, .ort].contains($0) }
            XCTAssertTrue(formats.contains(.onnx), name)
            for format in formats {
                let row = try Parity.measure(name, format)
                let what = "\(name), \(format.rawValue)"
                XCTAssertEqual(row.misses, [], what)
                XCTAssertTrue(row.goldenPassed, what)
                XCTAssertEqual(row.sameInputs, row.pictures, what)
                XCTAssertEqual(row.sameResults, row.pictures, what)
                XCTAssertEqual(row.otherPixels, 0, what)
                XCTAssertTrue(row.pictures >= 10 && row.goldenPictures >= 3, what)
                rows.append(row)
            }
        }
        try write(rows)
    }

    private func write(_ rows: [ParityRow]) throws {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        let table = Parity.markdown(rows)
        try writeReport("parity.json", encoder.encode(rows))
        try writeReport("parity.md", Data(table.utf8))
        print(table)
    }

    func testAnEngineThatIsALittleOffIsFoundOut() throws {
        for name in ["classify-fp32", "detect-fp32", "segment-fp32"] {
            let row = try Parity.measure(name, .onnx) { Altered($0) { _, value in 1.02 * value + 0.01 } }
            XCTAssertTrue(row.misses.contains { $0.hasPrefix("an output differs by") }, "\(name): \(row.misses)")
            XCTAssertFalse(row.goldenPassed)
        }
    }

    func testOneClassBoxOrRegionThatIsAnotherIsFoundOutInTheResultsToo() throws {
        let classify = try Parity.measure("classify-fp32", .onnx) { Altered($0) { $0 == 3 ? $1 + 20 : $1 } }
        XCTAssertEqual(classify.sameResults, 0)
        let detect = try Parity.measure("detect-fp32", .onnx) { Altered($0) { $0 % 97 == 0 ? $1 + 9 : $1 } }
        XCTAssertEqual(detect.sameResults, 0)
        // Where the outputs are that far apart, each pixel is a tie within their difference: that itself is the miss.
        let segment = try Parity.measure("segment-fp32", .onnx) { Altered($0) { $0 < 64 ? $1 + 50 : $1 } }
        XCTAssertGreaterThan(segment.otherPixels, 0)
        XCTAssertFalse(segment.misses.isEmpty)
    }

    /// An engine whose outputs are changed.
    private struct Altered: Engine {
        let inner: any Engine
        let change: @Sendable (Int, Float) -> Float

        init(_ inner: any Engine, _ change: @escaping @Sendable (Int, Float) -> Float) {
            self.inner = inner
            self.change = change
        }

        var report: EngineReport { inner.report }

        func run(_ image: RgbImage) throws -> Outputs {
            try inner.run(image).mapValues { tensor in
                try Tensor(shape: tensor.shape, values: tensor.values.enumerated().map(change))
            }
        }

        func close() { inner.close() }
    }
}

/// Writes a file to the package's .build folder.
func writeReport(_ name: String, _ content: Data) throws {
    let folder = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent()  // ParityTests
        .deletingLastPathComponent()  // Tests
        .deletingLastPathComponent()
        .appendingPathComponent(".build")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    try content.write(to: folder.appendingPathComponent(name))
}
