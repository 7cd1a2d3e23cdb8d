import CoreGraphics
import CoreVideo
import Foundation
import TestSupport

@testable import XFormerCore
@testable import XFormerCoreML
@testable import XFormerDemo

/// A model that answers what it is told.
final class FakeModel: DemoModel, @unchecked Sendable {
    let name: String
    let weights: Manifest.WeightsSource
    let palette: [Rgb]
    private let lock = NSLock()
    private var answer: Result<TimedPrediction, any Error>
    private var closings = 0

    init(
        _ name: String = "fake", weights: Manifest.WeightsSource = .checkpoint, palette: [Rgb] = [],
        answer: Result<Prediction, any Error> = .success(.classifications([]))
    ) {
        self.name = name
        self.weights = weights
        self.palette = palette
        self.answer = answer.map {
            TimedPrediction(prediction: $0, preprocessNs: 1, inferenceNs: 2_000_000, postprocessNs: 3)
        }
    }

    var report: EngineReport {
        EngineReport(engine: "coreml", version: "17.0", format: .coreml, requested: "all")
    }

    var timesClosed: Int { lock.withLock { closings } }

    func predict(_ frame: LiveFrame, mapSize: PixelSize) async throws -> TimedPrediction { try answer.get() }

    func predict(_ picture: Picture, mapSize: PixelSize) async throws -> TimedPrediction { try answer.get() }

    func close() async { lock.withLock { closings += 1 } }
}

/// A camera that does what it is told.
final class FakeCamera: CameraSource, @unchecked Sendable {
    private let lock = NSLock()
    private var given: CameraPermission
    private let afterAsking: CameraPermission
    private let all: [CameraSide]
    private var told: (@Sendable (CameraEvent) -> Void)?
    private var started: [CameraSide] = []
    private var stops = 0

    init(
        _ permission: CameraPermission = .allowed, afterAsking: CameraPermission = .allowed,
        sides: [CameraSide] = CameraSide.allCases
    ) {
        given = permission
        self.afterAsking = afterAsking
        all = sides
    }

    var events: (@Sendable (CameraEvent) -> Void)? { lock.withLock { told } }
    var starts: [CameraSide] { lock.withLock { started } }
    var timesStopped: Int { lock.withLock { stops } }

    func permission() -> CameraPermission { lock.withLock { given } }

    func ask() async { lock.withLock { given = afterAsking } }

    func sides() -> [CameraSide] { all }

    func start(_ side: CameraSide, events: @escaping @Sendable (CameraEvent) -> Void) {
        lock.withLock {
            started.append(side)
            told = events
        }
    }

    func stop() { lock.withLock { stops += 1 } }
}

/// A clock that goes on when it is told.
final class FakeClock: BenchmarkClock, @unchecked Sendable {
    private let lock = NSLock()
    private var time = 0

    func advance(_ ns: Int) { lock.withLock { time += ns } }

    func nanoseconds() -> Int { lock.withLock { time } }

    func now() -> Date { Date(timeIntervalSince1970: 1_700_000_000) }
}

/// A camera's frame of 4 x 2 pixels.
func frame(front: Bool = false) throws -> LiveFrame {
    var made: CVPixelBuffer?
    _ = CVPixelBufferCreate(nil, 4, 2, kCVPixelFormatType_32BGRA, nil, &made)
    guard let pixels = made else { throw XFormerError.image("no buffer") }
    return LiveFrame(pixels: pixels, geometry: CameraGeometry(rotation: .quarter, isFront: front))
}

/// Answers golden pictures with their golden outputs, and others with those of the first one.
final class GoldenEngine: Engine {
    let report: EngineReport
    private let cases: [GoldenCase]
    private let change: @Sendable (Outputs) throws -> Outputs

    init(_ bundle: ModelBundle, units: ComputeUnits, change: @escaping @Sendable (Outputs) throws -> Outputs) throws {
        report = EngineReport(engine: "coreml", version: "17.0", format: .coreml, requested: units.rawValue)
        cases = try (0..<bundle.goldenCount).map { try bundle.golden($0, decode: decodeRaw) }
        self.change = change
    }

    func run(_ image: RgbImage) throws -> Outputs {
        try change((cases.first { $0.image == image } ?? cases[0]).outputs)
    }

    func close() {}
}

/// A device whose engines answer as golden, but for what `change` does.
struct FakeDevice: BenchmarkDevice {
    var refusal: XFormerError?
    var change: @Sendable (BenchmarkTarget, Outputs) throws -> Outputs = { $1 }

    func machine() throws -> LatencyRun.Machine { try LatencyRun.Machine(id: "fake", system: "Linux") }

    var probe: any BenchmarkProbe { SilentProbe() }

    var decode: PictureDecoder { decodeRaw }

    func prepare(_ bundle: ModelBundle) async throws -> @Sendable (BenchmarkTarget) throws -> any Engine {
        if let refusal { throw refusal }
        return { [change] target in
            try GoldenEngine(bundle, units: target.units) { try change(target, $0) }
        }
    }
}

/// Every value is off by a half.
let wrongOutputs: @Sendable (BenchmarkTarget, Outputs) throws -> Outputs = { _, outputs in
    try outputs.mapValues { try Tensor(shape: $0.shape, values: $0.values.map { -3 * $0 + 0.5 }) }
}

/// Waits until something is so; a minute at most, which only a broken test takes.
@MainActor
func eventually(_ holds: @MainActor () -> Bool) async throws {
    for _ in 0..<6000 {
        if holds() { return }
        try await Task.sleep(nanoseconds: 10_000_000)
    }
    throw XFormerError.usage("it never came to be so")
}

/// An empty directory, which is gone when the test's process ends its use.
final class Directory {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("xformer-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    /// A bundle's folder in it; the bundle has a Core ML model.
    func bundle(_ name: String, task: ModelTask = .classify) throws -> URL {
        let place = url.appendingPathComponent(name, isDirectory: true)
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
        try TestBundle(Self.manifest(of: task)).write(to: place)
        return place
    }

    /// A test manifest, its first model exchanged for one of Core ML where it has none.
    private static func manifest(of task: ModelTask) throws -> Json {
        let manifest = try TestBundle.manifest(of: task)
        if task == .segment { return manifest }
        let coreML = try TestBundle.manifest(of: .segment).at("artifacts/1")?.with("quantization", nil)
        let parity = manifest.at("parity/onnx")?.with("engine", .text("coreml"))
        return manifest.with("artifacts/0", coreML).with("parity/onnx", nil).with("parity/coreml", parity)
    }
}
