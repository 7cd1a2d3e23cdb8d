import TestSupport
import XCTest

@testable import XFormerCore

final class ModelBundleTests: XCTestCase {
    /// Opens a bundle and asks for all that it holds.
    @discardableResult
    private func use(_ directory: URL) throws -> ModelBundle {
        let bundle = try ModelBundle.open(directory)
        for format in bundle.formats { _ = try bundle.artifact(format) }
        let postprocess = try bundle.postprocess()
        let size = PixelSize(width: 64, height: 64)
        let fit = try Fit.of(source: size, target: bundle.imageSize, rule: bundle.resizeRule)
        for index in 0..<bundle.goldenCount {
            _ = try postprocess(bundle.golden(index, decode: decodeRaw).outputs, fit: fit)
        }
        return bundle
    }

    func testWhatAnExportWritesIsGivenBack() throws {
        for task in ModelTask.allCases {
            try withTemporaryDirectory { directory in
                let made = try TestBundle(task)
                try made.write(to: directory)
                let bundle = try use(directory)
                XCTAssertEqual(bundle.task, task)
                XCTAssertEqual(bundle.labels, ["cat", "dog", "cup"])
                XCTAssertEqual(bundle.imageSize, try ImageSize(height: 64, width: 64))
                XCTAssertEqual(!bundle.isUntrained, task == .segment)
                for format in bundle.formats where format != .coreml {
                    let artifact = try bundle.artifact(format)
                    XCTAssertEqual(artifact.format, format)
                    XCTAssertEqual(artifact.sha256, sha256(try XCTUnwrap(made.files[artifact.url.lastPathComponent])))
                }
                for index in 0..<bundle.goldenCount {
                    let golden = try bundle.golden(index, decode: decodeRaw)
                    XCTAssertEqual(golden.name, ["000", "001"][index])
                    XCTAssertEqual(Data(golden.image.bytes), made.files["golden/\(golden.name).png"])
                    XCTAssertEqual(golden.outputs.mapValues(\.shape), bundle.outputShapes)
                    for (name, tensor) in golden.outputs {
                        let stored = made.files["golden/\(golden.name).\(name).f32"]
                        XCTAssertEqual(Data(littleEndian: tensor.values), stored)
                    }
                }
            }
        }
    }

    func testTheRulesOfEachTask() throws {
        func bundle(_ task: ModelTask) throws -> ModelBundle {
            try withTemporaryDirectory { directory in
                try TestBundle(task).write(to: directory)
                return try ModelBundle.open(directory)
            }
        }
        let classify = try bundle(.classify)
        XCTAssertEqual(classify.precision, "fp32")
        XCTAssertEqual(classify.resizeRule, .resizeShorterCenterCrop)
        XCTAssertEqual(classify.formats, [.onnx, .ort])
        XCTAssertEqual(try classify.postprocess().topK, 5)
        let detect = try bundle(.detect)
        XCTAssertEqual(detect.resizeRule, .letterbox)
        XCTAssertEqual(Set(detect.outputShapes.keys), ["stride8", "stride16", "stride32"])
        let rule = try XCTUnwrap(detect.postprocess().detection)
        XCTAssertEqual(rule.strides, [8, 16, 32])
        XCTAssertEqual(rule.anchors[0][0], Anchor(width: 1.5384616, height: 2))
        XCTAssertEqual([rule.scoreThreshold, rule.iouThreshold], [0.25, 0.45])
        XCTAssertEqual(rule.maxDetections, 100)
        let segment = try bundle(.segment)
        XCTAssertEqual(segment.resizeRule, .resize)
        XCTAssertEqual(
            try segment.postprocess().palette,
            [Rgb(red: 0, green: 0, blue: 0), Rgb(red: 128, green: 0, blue: 0), Rgb(red: 0, green: 128, blue: 0)])
    }

    func testAnArtifactThatIsADirectoryHasTheSha256OfWhatSha256sumPrints() throws {
        try withTemporaryDirectory { directory in
            // Of tree_sha256 in xformer_mobile/files.py for the same files. The first two change places in UTF-16, and
            // the next in Swift's order of texts, to which the accent is part of its letter. None is written as Apple's
            // Foundation would not store it: it takes letters such as U+00E9 apart.
            let files = [
                "\u{ff5e}": "four", "\u{1f600}": "five", "e\u{301}": "six", "f": "seven", "b": "one",
                "a/c.bin": "two", "a.b": "three",
            ]
            for (name, content) in files {
                let url = directory.appendingPathComponent(name)
                try FileManager.default.createDirectory(
                    at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
                try Data(content.utf8).write(to: url)
            }
            try FileManager.default.createDirectory(
                at: directory.appendingPathComponent("empty"), withIntermediateDirectories: false)
            XCTAssertEqual(
                try treeSha256(directory), "fb22f19953f38bb02fa769236abe8639a5f64cd191e9d158d197b9e1ac3412a4")
        }
    }

    func testSha256() throws {
        XCTAssertEqual(sha256(Data()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        XCTAssertEqual(sha256([UInt8]("abc".utf8)), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        try withTemporaryDirectory { directory in
            var random = Seeded(1)
            let url = directory.appendingPathComponent("file")
            for count in [0, 1, 65_535, 65_536, 65_537, 200_000] {
                let content = Data(random.bytes(count))
                try content.write(to: url)
                XCTAssertEqual(try fileSha256(url), sha256(content))
                XCTAssertEqual(try readAtMost(70_000, of: url), content.prefix(70_000))
            }
        }
    }

    func testAFormatOrCaseThatTheBundleLacks() throws {
        try withTemporaryDirectory { directory in
            try TestBundle(.classify).write(to: directory)
            let bundle = try ModelBundle.open(directory)
            let message = refusal(.usage) { try bundle.artifact(.tflite) }
            XCTAssertTrue(message.contains("has no tflite artifact; it has onnx, ort"), message)
            for index in [-1, 2, Int.max, Int.min] {
                XCTAssertTrue(
                    refusal(.usage) { try bundle.golden(index, decode: decodeRaw) }.contains("the bundle has 2"))
            }
        }
    }

    // MARK: - Files that are refused

    private struct Bad {
        let name: String
        let problem: String
        var task = ModelTask.classify
        let change: (URL) throws -> Void
    }

    private func remove(_ name: String) -> (URL) throws -> Void {
        { try FileManager.default.removeItem(at: $0.appendingPathComponent(name)) }
    }

    private func link(_ name: String, to target: String) -> (URL) throws -> Void {
        { bundle in
            let path = bundle.appendingPathComponent(name).path
            try? FileManager.default.removeItem(atPath: path)
            try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: target)
        }
    }

    private func write(_ name: String, _ content: Data = Data("x".utf8)) -> (URL) throws -> Void {
        { bundle in
            let url = bundle.appendingPathComponent(name)
            try? FileManager.default.removeItem(at: url)
            try content.write(to: url)
        }
    }

    private func makeDirectory(_ name: String) -> (URL) throws -> Void {
        { bundle in
            let url = bundle.appendingPathComponent(name)
            try? FileManager.default.removeItem(at: url)
            try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
        }
    }

    private func makeFifo(_ name: String) -> (URL) throws -> Void {
        { bundle in
            let path = bundle.appendingPathComponent(name).path
            try? FileManager.default.removeItem(atPath: path)
            XCTAssertEqual(mkfifo(path, 0o600), 0)
        }
    }

    /// The right content, but it lies beside the bundle.
    private func moveOut(_ name: String) -> (URL) throws -> Void {
        { bundle in
            let outside = bundle.deletingLastPathComponent().appendingPathComponent("bundle-outside")
            try FileManager.default.moveItem(at: bundle.appendingPathComponent(name), to: outside)
            try self.link(name, to: outside.path)(bundle)
        }
    }

    /// Another content of a file, with the right sha256 in the manifest.
    private func store(_ place: String, _ content: Data) -> (URL) throws -> Void {
        { bundle in
            var made = try TestBundle(.classify)
            made.store(place, content)
            try made.write(to: bundle)
        }
    }

    private func edit(_ path: String, _ value: Json?) -> (URL) throws -> Void {
        { bundle in try TestBundle(.classify).write(to: bundle) { $0.with(path, value) } }
    }

    private func flip(_ name: String) -> (URL) throws -> Void {
        { bundle in
            let url = bundle.appendingPathComponent(name)
            var content = try Data(contentsOf: url)
            content[150] ^= 1
            try content.write(to: url)
        }
    }

    private func truncate(_ name: String, _ change: @escaping (Int) -> Int) -> (URL) throws -> Void {
        { bundle in
            let file = try FileHandle(forUpdating: bundle.appendingPathComponent(name))
            try file.truncate(atOffset: UInt64(change(Int(file.seekToEnd()))))
            try file.close()
        }
    }

    private var badFiles: [Bad] {
        [
            Bad(name: "no directory", problem: "no such directory; xformer-export makes one", change: remove("")),
            Bad(name: "no manifest", problem: "it has no manifest.json", change: remove("manifest.json")),
            Bad(name: "manifest a directory", problem: "has no manifest.json", change: makeDirectory("manifest.json")),
            Bad(name: "manifest without an end", problem: "has no manifest.json", change: makeFifo("manifest.json")),
            Bad(
                name: "manifest of a device", problem: "has no manifest", change: link("manifest.json", to: "/dev/zero")
            ),
            Bad(
                name: "manifest huge", problem: "a manifest is smaller",
                change: truncate("manifest.json") { _ in Manifest.maxBytes + 1 }),
            Bad(name: "manifest not JSON", problem: "is not JSON", change: write("manifest.json")),
            Bad(name: "manifest empty", problem: "is not JSON", change: write("manifest.json", Data())),
            Bad(
                name: "artifact missing", problem: "model.onnx of the bundle bundle is missing",
                change: remove("model.onnx")),
            Bad(
                name: "artifact a directory", problem: "model.onnx of the bundle bundle is not a file",
                change: makeDirectory("model.onnx")),
            Bad(name: "artifact without an end", problem: "is not a file", change: makeFifo("model.onnx")),
            Bad(name: "artifact truncated", problem: "it was changed", change: truncate("model.onnx") { $0 - 1 }),
            Bad(name: "artifact longer", problem: "it was changed", change: truncate("model.onnx") { $0 + 1 }),
            Bad(name: "artifact with one bit flipped", problem: "it was changed", change: flip("model.onnx")),
            Bad(name: "artifact outside", problem: "leads out of it", change: moveOut("model.onnx")),
            Bad(name: "artifact a link to itself", problem: "model.onnx", change: link("model.onnx", to: "model.onnx")),
            Bad(name: "artifact a link to nothing", problem: "is missing", change: link("model.onnx", to: "nothing")),
            Bad(
                name: "directory artifact a file", problem: "model.mlpackage of the bundle bundle is not a directory",
                task: .segment, change: write("model.mlpackage")),
            Bad(
                name: "directory artifact with another file", problem: "it was changed", task: .segment,
                change: write("model.mlpackage/more")),
            Bad(
                name: "directory artifact without a file", problem: "it was changed", task: .segment,
                change: remove("model.mlpackage/Data/model.mlmodel")),
            Bad(
                name: "directory artifact with a link", problem: "more is a symbolic link", task: .segment,
                change: link("model.mlpackage/more", to: "Manifest.json")),
            Bad(
                name: "directory artifact with a link back", problem: "Data/more is a symbolic link", task: .segment,
                change: link("model.mlpackage/Data/more", to: "..")),
            Bad(
                name: "directory artifact without an end", problem: "more is not a file", task: .segment,
                change: makeFifo("model.mlpackage/more")),
            Bad(
                name: "directory artifact outside", problem: "out of it", task: .segment,
                change: moveOut("model.mlpackage")),
            Bad(name: "golden outside", problem: "leads out of it", change: moveOut("golden")),
            Bad(name: "golden missing", problem: "000.png of the bundle bundle is missing", change: remove("golden")),
            Bad(name: "golden a file", problem: "000.png of the bundle bundle is missing", change: write("golden")),
            Bad(name: "golden input changed", problem: "was changed", change: write("golden/000.png")),
            Bad(
                name: "golden output changed", problem: "was changed",
                change: write("golden/000.logits.f32", Data(count: 12))),
            Bad(
                name: "golden input of another size",
                problem: "golden/000.png of the bundle bundle can't be used: got 6144",
                change: store("golden/0/input", Data(count: 3 * 64 * 32))),
            Bad(
                name: "golden output short", problem: "does not have the shape (1, 3)",
                change: store("golden/0/outputs/logits", Data(count: 8))),
            Bad(
                name: "golden output long", problem: "has more than 12 bytes",
                change: store("golden/0/outputs/logits", Data(count: 16))),
            Bad(
                name: "golden output not finite", problem: "NaN or infinite in 'logits'",
                change: store("golden/0/outputs/logits", Data(littleEndian: [0, .nan, 0]))),
            Bad(
                name: "golden output of no name", problem: "lack 'logits'", change: edit("golden/0/outputs/logits", nil)
            ),
            Bad(
                name: "sha256 of another file", problem: "not 000000000000...; it was changed",
                change: edit("artifacts/0/sha256", .text(String(repeating: "0", count: 64)))),
        ]
    }

    func testBadFilesAreRefused() throws {
        for bad in badFiles {
            try withTemporaryDirectory { temporary in
                let bundle = temporary.appendingPathComponent("bundle")
                try TestBundle(bad.task).write(to: bundle)
                try use(bundle)
                try bad.change(bundle)
                let message = refusal(.bundle, bad.name) { try use(bundle) }
                XCTAssertTrue(message.contains(bad.problem), "\(bad.name): \(message)")
            }
        }
        print("bundles with bad files that are refused: \(badFiles.count)")
    }

    func testEveryFileIsVerified() throws {
        for task in ModelTask.allCases {
            try withTemporaryDirectory { directory in
                let made = try TestBundle(task)
                try made.write(to: directory)
                let bundle = try ModelBundle.open(directory)
                try bundle.verify()
                for (name, content) in made.files {
                    try write(name, content + Data([0]))(directory)
                    XCTAssertTrue(refusal(.bundle, name) { try bundle.verify() }.contains("it was changed"))
                    try write(name, content)(directory)
                }
                try bundle.verify()
            }
        }
    }

    func testFilesChangedAtRandomAreRefused() throws {
        for task in ModelTask.allCases {
            try withTemporaryDirectory { directory in
                let made = try TestBundle(task)
                try made.write(to: directory)
                let names = made.files.keys.sorted() + ["manifest.json"]
                let manifest = Data(made.manifest.written.utf8)
                try forSeeds(60) { random in
                    let name = names[.random(in: 0..<names.count, using: &random)]
                    let content = made.files[name] ?? manifest
                    let changed = random.mutated(content)
                    try write(name, changed)(directory)
                    do {
                        let bundle = try use(directory)
                        try bundle.verify()
                        XCTAssertTrue(name == "manifest.json" || changed == content, "\(name) is taken")
                    } catch let error as XFormerError {
                        XCTAssertEqual(ErrorKind(error), .bundle, "\(error)")
                    }
                    try write(name, content)(directory)
                }
                try use(directory)
            }
        }
    }

    func testABundleIsNoFileNorNothing() throws {
        try withTemporaryDirectory { temporary in
            let file = temporary.appendingPathComponent("file")
            try Data().write(to: file)
            for url in [file, temporary.appendingPathComponent("nothing"), URL(fileURLWithPath: "/dev/null")] {
                let message = refusal(.bundle) { try ModelBundle.open(url) }
                XCTAssertTrue(message.contains("no such directory"), message)
            }
        }
    }

    func testAGoldenInputOfTheWrongPicturesSizeIsRefused() throws {
        try withTemporaryDirectory { directory in
            try TestBundle(.classify).write(to: directory)
            let bundle = try ModelBundle.open(directory)
            let message = refusal(.bundle) {
                try bundle.golden(0) { _ in try RgbImage(width: 64, height: 32, bytes: .init(repeating: 0, count: 6144))
                }
            }
            XCTAssertTrue(message.contains("is 32x64, not 64x64"), message)
        }
    }

    func testLinksInsideAndBeforeTheBundleAreFine() throws {
        try withTemporaryDirectory { temporary in
            let bundle = temporary.appendingPathComponent("bundle")
            try TestBundle(.classify).write(to: bundle)
            let artifact = bundle.appendingPathComponent("model.onnx")
            try FileManager.default.moveItem(at: artifact, to: bundle.appendingPathComponent("renamed"))
            try link("model.onnx", to: "renamed")(bundle)
            try use(bundle)
            try link("link", to: "bundle")(temporary)
            try use(temporary.appendingPathComponent("link"))
            try use(URL(fileURLWithPath: bundle.path + "/"))
        }
    }
}
