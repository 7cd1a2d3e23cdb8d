import Foundation
import TestSupport
import XFormerCore

/// What scripts/app_fixtures.py made: a bundle, pictures, and what Python makes of them.
struct Fixtures {
    /// The bundles that there have to be.
    static let names =
        ModelTask.allCases.flatMap { ["\($0.rawValue)-fp32", "\($0.rawValue)-int8"] }
        + ["classify-int8-weights"]

    /// Where they are.
    static func root() throws -> URL {
        guard let path = ProcessInfo.processInfo.environment["XFORMER_FIXTURES"] else {
            throw Missing(description: "set XFORMER_FIXTURES to the folder that scripts/app_fixtures.py filled")
        }
        return URL(fileURLWithPath: path, isDirectory: true)
    }

    /// The bundle's folder.
    static func directory(_ name: String) throws -> URL { try root().appendingPathComponent("bundles/\(name)") }

    let bundle: ModelBundle

    /// Versions of Python's engines by name.
    let tools: [String: String]

    /// Of Python's engines.
    let threads: Int

    /// Of the processor that Python ran on.
    let architecture: String

    /// Picture by picture.
    let cases: [Case]

    init(_ name: String) throws {
        bundle = try ModelBundle.open(Self.directory(name))
        let directory = try Self.root().appendingPathComponent("expected/\(name)")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let document = try decoder.decode(
            Document.self, from: Data(contentsOf: directory.appendingPathComponent("expected.json")))
        tools = document.tools
        threads = document.threads
        architecture = document.architecture
        cases = document.cases.map { [bundle] in Case(directory: directory, bundle: bundle, fields: $0) }
    }

    /// A picture; what preprocessing makes of it, and what an engine of Python returns for that.
    struct Case {
        fileprivate let directory: URL
        fileprivate let bundle: ModelBundle
        fileprivate let fields: Document.Case

        var name: String { fields.picture.name ?? fields.picture.file }

        func image() throws -> RgbImage { try decodePng(content(fields.picture)) }

        func input() throws -> [UInt8] { [UInt8](try content(fields.input)) }

        func outputs(_ format: ArtifactFormat) throws -> Outputs {
            try made(format).outputs.mapValues { stored in
                try Tensor(shape: present(stored.shape), values: content(stored).littleEndianFloats)
            }
        }

        func result(_ format: ArtifactFormat) throws -> Prediction {
            let made = try made(format)
            switch bundle.task {
            case .classify:
                return .classifications(
                    try present(made.result).map {
                        Classification(index: $0.index, label: $0.label, probability: try present($0.probability))
                    })
            case .detect:
                return .detections(
                    try present(made.result).map {
                        let box = try present($0.box)
                        return Detection(
                            index: $0.index, label: $0.label, score: try present($0.score),
                            box: Box(x1: box.x1, y1: box.y1, x2: box.x2, y2: box.y2))
                    })
            case .segment:
                let stored = try present(made.classMap)
                let shape = try present(stored.shape)
                let classes = try content(stored).map(UInt16.init)
                return .classMap(
                    try ClassMap(width: shape[1], height: shape[0], classes: classes, labels: bundle.labels))
            }
        }

        private func made(_ format: ArtifactFormat) throws -> Document.Made {
            try present(fields.formats[format.rawValue])
        }

        private func present<Value>(_ value: Value?) throws -> Value {
            guard let value else { throw Missing(description: "expected.json lacks something of \(name)") }
            return value
        }

        private func content(_ stored: Document.Stored) throws -> Data {
            let content = try Data(contentsOf: directory.appendingPathComponent(stored.file).standardizedFileURL)
            guard sha256(content) == stored.sha256 else {
                throw Missing(description: "\(stored.file) is not what was made")
            }
            return content
        }
    }

    /// expected.json.
    fileprivate struct Document: Decodable {
        struct Case: Decodable {
            let picture: Stored
            let input: Stored
            let formats: [String: Made]
        }

        struct Made: Decodable {
            let outputs: [String: Stored]
            let result: [Row]?
            let classMap: Stored?
        }

        struct Stored: Decodable {
            let name: String?
            let file: String
            let sha256: String
            let shape: [Int]?
        }

        struct Row: Decodable {
            let index: Int
            let label: String
            let probability: Double?
            let score: Float?
            let box: Corners?
        }

        struct Corners: Decodable {
            let x1: Float
            let y1: Float
            let x2: Float
            let y2: Float
        }

        let tools: [String: String]
        let threads: Int
        let architecture: String
        let cases: [Case]
    }
}

/// A fixture that is not there, or not what was made.
struct Missing: Error, CustomStringConvertible {
    let description: String
}
