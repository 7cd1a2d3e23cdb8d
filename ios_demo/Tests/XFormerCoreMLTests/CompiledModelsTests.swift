#if os(Linux)
import CoreML
import TestSupport
import XCTest
import XFormerCore

@testable import XFormerCoreML

final class CompiledModelsTests: XCTestCase {
    private let manager = FileManager.default

    private var compilations: Int { CoreMLDouble.calls.filter { $0 == .compile }.count }

    func testAModelIsCompiledOnce() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let artifact = try files.bundle.artifact(.coreml)
        let first = try await files.models.model(for: artifact)
        let second = try await files.models.model(for: artifact)
        XCTAssertEqual(first.url, second.url)
        XCTAssertEqual([first.isReused, second.isReused], [false, true])
        XCTAssertEqual(compilations, 1)
        XCTAssertTrue(first.url.path.hasPrefix(files.models.directory.path))
        XCTAssertTrue(files.models.entry(for: artifact).lastPathComponent.hasPrefix(artifact.sha256))
    }

    func testAnotherArtifactIsCompiledAnew() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let artifact = try files.bundle.artifact(.coreml)
        let other = Artifact(
            format: .coreml, url: artifact.url, sha256: String(repeating: "0", count: 64),
            sizeBytes: artifact.sizeBytes)
        let first = try await files.models.model(for: artifact)
        let second = try await files.models.model(for: other)
        XCTAssertNotEqual(first.url, second.url)
        XCTAssertEqual(compilations, 2)
        XCTAssertTrue(manager.fileExists(atPath: first.url.path))
    }

    func testWhatAnOlderSystemCompiledIsRemoved() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let artifact = try files.bundle.artifact(.coreml)
        let old = files.models.directory.appendingPathComponent("\(artifact.sha256)-Version15.0")
        try manager.createDirectory(at: old, withIntermediateDirectories: true)
        _ = try await files.models.model(for: artifact)
        XCTAssertFalse(manager.fileExists(atPath: old.path))
    }

    func testAnIncompleteEntryIsMadeAgain() async throws {
        let files = FileManager.default
        let weights = "Data/com.apple.CoreML/weights/weight.bin"
        let list = "../files.json"
        let damages: [(String, (URL) throws -> Void)] = [
            ("a file is missing", { try files.removeItem(at: $0.appendingPathComponent("double.json")) }),
            ("a file is truncated", { try Data([7]).write(to: $0.appendingPathComponent(weights)) }),
            ("a file too many", { try Data([7]).write(to: $0.appendingPathComponent("more")) }),
            ("no list", { try files.removeItem(at: $0.appendingPathComponent(list).standardized) }),
            ("a broken list", { try Data("[1".utf8).write(to: $0.appendingPathComponent(list).standardized) }),
            ("no model", { try files.removeItem(at: $0) }),
        ]
        for (words, damage) in damages {
            let files = try ModelFiles.make(.classify, for: self)
            let artifact = try files.bundle.artifact(.coreml)
            let url = try await files.models.model(for: artifact).url
            try damage(url)
            let again = try await files.models.model(for: artifact)
            XCTAssertFalse(again.isReused, words)
            XCTAssertEqual(again.url, url)
            let engine = try CoreMLEngine(again, for: files.bundle)
            XCTAssertEqual(try engine.run(files.picture()), try files.expected(files.picture()))
        }
    }

    func testAnEntryThatCoreMLRefusesIsMadeAgain() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let artifact = try files.bundle.artifact(.coreml)
        let url = try await files.models.model(for: artifact).url
        // Another content of the same size: the list says nothing.
        let file = url.appendingPathComponent("double.json")
        let size = try Data(contentsOf: file).count
        try Data(repeating: 32, count: size).write(to: file)
        let engine = try await CoreMLEngine.open(files.bundle, models: files.models)
        XCTAssertEqual(try engine.run(files.picture()), try files.expected(files.picture()))
        XCTAssertEqual(compilations, 2)
    }

    func testAModelThatCoreMLRefusesIsTriedOnceWhenItIsNew() async throws {
        let files = try ModelFiles.make(.classify, for: self) { $0.width = 128 }
        _ = await refusal(XFormerError.bundle) {
            try await CoreMLEngine.open(files.bundle, models: files.models)
        }
        XCTAssertEqual(compilations, 1)
    }

    func testWhatCannotBeCompiledIsAnErrorOfTheBundle() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let artifact = try files.bundle.artifact(.coreml)
        try manager.removeItem(at: artifact.url.appendingPathComponent("double.json"))
        let message = await refusal(XFormerError.bundle) { try await files.models.model(for: artifact) }
        XCTAssertTrue(message.hasPrefix("Core ML can't compile \(artifact.url.lastPathComponent): Failed"), message)
    }

    func testADirectoryThatCannotBeWrittenIsNoError() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        try Data().write(to: files.models.directory)
        let engine = try await CoreMLEngine.open(files.bundle, models: files.models)
        XCTAssertTrue(engine.report.notes.contains { $0.contains("can't be kept") })
        XCTAssertEqual(try engine.run(files.picture()), try files.expected(files.picture()))
    }

    func testManyAtOnceGetTheSameModel() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let artifact = try files.bundle.artifact(.coreml)
        try await withThrowingTaskGroup(of: CompiledModel.self) { group in
            for _ in 0..<6 { group.addTask { try await files.models.model(for: artifact) } }
            for try await compiled in group { XCTAssertEqual(compiled.notes, []) }
        }
        let kept = try manager.contentsOfDirectory(atPath: files.models.directory.path)
        XCTAssertEqual(kept, [files.models.entry(for: artifact).lastPathComponent])
    }

    func testACompiledArtifactIsTakenAsItIs() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let artifact = try files.bundle.artifact(.coreml)
        let compiled = files.root.appendingPathComponent("model.mlmodelc")
        try manager.copyItem(at: artifact.url, to: compiled)
        let found = try await files.models.model(
            for: Artifact(format: .coreml, url: compiled, sha256: artifact.sha256, sizeBytes: 1))
        XCTAssertEqual(found.url, compiled)
        XCTAssertEqual(compilations, 0)
        XCTAssertEqual(
            try CoreMLEngine(found, for: files.bundle).run(files.picture()), try files.expected(files.picture()))
    }
}
#endif
