import TestSupport
import XCTest

@testable import XFormerCore

/// Against numbers that `compare` of xformer_mobile/parity/compare.py gives for the same drawn outputs.
final class GoldenReplayTests: XCTestCase {
    /// What is said of picture, output and number of values.
    private typealias Values = (_ picture: Int, _ output: Int, _ count: Int) -> [Float]

    private let directory = FileManager.default.temporaryDirectory
        .appendingPathComponent("xformer-\(UUID().uuidString)")

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: directory)
    }

    /// What the reference model returned for a golden input: drawn floats in -8 until 8.
    private func reference(_ picture: Int, _ output: Int, _ count: Int) -> [Float] {
        var drawn = Drawn(seed: UInt32(1 + 100 * picture + output))
        return drawn.floats(count)
    }

    /// The reference with noise of up to 8 * 2^-power.
    private func noisy(_ power: Int) -> Values {
        { [self] picture, output, count in
            var drawn = Drawn(seed: UInt32(7001 + 100 * picture + output))
            let scale = 1 / Float(1 << power)
            return zip(reference(picture, output, count), drawn.floats(count)).map { $0 + $1 * scale }
        }
    }

    private func bundle(
        _ task: ModelTask, _ values: Values? = nil, change: (Json) -> Json = { $0 }
    ) throws -> ModelBundle {
        let tolerance = try Json.parse(Data(#"{"relative_max": 1e-4, "snr_db": 40, "agreement": 0.995}"#.utf8))
        var made = try TestBundle(TestBundle.manifest(of: task).with("parity/onnx/tolerance", tolerance))
        let outputs = made.manifest.at("outputs")?.items ?? []
        for picture in 0..<2 {
            for (number, output) in outputs.enumerated() {
                let count = (output.at("shape")?.items ?? []).compactMap { Int($0.written) }.reduce(1, *)
                let stored = (values ?? reference)(picture, number, count)
                let name = try XCTUnwrap(output.at("name")?.text)
                made.store("golden/\(picture)/outputs/\(name)", Data(littleEndian: stored))
            }
        }
        try made.write(to: directory, change)
        return try ModelBundle.open(directory)
    }

    /// Returns for the golden inputs, one after the other, what `values` says.
    private func engine(_ bundle: ModelBundle, _ values: @escaping Values) -> FakeEngine {
        var picture = -1
        return FakeEngine { _ in
            picture += 1
            var outputs: Outputs = [:]
            for (number, output) in bundle.manifest.outputs.enumerated() {
                let found = values(picture, number, output.shape.reduce(1, *))
                outputs[output.name] = try Tensor(shape: output.shape, values: found)
            }
            return outputs
        }
    }

    private func replay(_ bundle: ModelBundle, _ values: @escaping Values) throws -> ParityResult {
        try GoldenReplay.run(bundle, format: .onnx, engine: engine(bundle, values), decode: decodeRaw)
    }

    private struct Expected {
        let task: ModelTask
        let power: Int
        let outputs: [OutputComparison]
        let agreement: Agreement
        let misses: [String]
    }

    private let expected = [
        Expected(
            task: .classify, power: 4,
            outputs: [
                OutputComparison(
                    name: "logits", maxAbs: 0.48807764053344727, meanAbs: 0.3516833782196045,
                    relativeMax: 0.0413001431098198, snrDb: 21.3417577190504, worstSnrDb: 19.562476770576453,
                    cosine: 0.9963662170048222)
            ],
            agreement: Agreement(
                name: "top-1 agreement", share: 1.0,
                figures: [
                    "top-3 in common": 1.0
                ]),
            misses: [
                "logits differs by 4.13e-02 of its range, 1e-04 is allowed",
                "logits has a signal-to-noise ratio of 21.3 dB; 40 dB needed",
            ]),
        Expected(
            task: .classify, power: 12,
            outputs: [
                OutputComparison(
                    name: "logits", maxAbs: 0.0019066333770751953, meanAbs: 0.0013738075892130535,
                    relativeMax: 0.00016133546139319275, snrDb: 69.50634647602273, worstSnrDb: 67.72718443976085,
                    cosine: 0.9999999440149366)
            ],
            agreement: Agreement(
                name: "top-1 agreement", share: 1.0,
                figures: [
                    "top-3 in common": 1.0
                ]),
            misses: [
                "logits differs by 1.61e-04 of its range, 1e-04 is allowed"
            ]),
        Expected(
            task: .detect, power: 4,
            outputs: [
                OutputComparison(
                    name: "stride8", maxAbs: 0.49999380111694336, meanAbs: 0.25619668781291693,
                    relativeMax: 0.031263004971547756, snrDb: 24.027940974038717, worstSnrDb: 23.99054860348434,
                    cosine: 0.9980267646924703),
                OutputComparison(
                    name: "stride16", maxAbs: 0.4990406036376953, meanAbs: 0.25418768481661874,
                    relativeMax: 0.031243695294411056, snrDb: 24.224359795330273, worstSnrDb: 23.935441783751745,
                    cosine: 0.9981298900346673),
                OutputComparison(
                    name: "stride32", maxAbs: 0.49976634979248047, meanAbs: 0.28115686277548474,
                    relativeMax: 0.031362129864471656, snrDb: 23.49742864011192, worstSnrDb: 23.354766787322042,
                    cosine: 0.9978299711888353),
            ],
            agreement: Agreement(
                name: "box agreement", share: 0.56,
                figures: [
                    "mean IoU of matched boxes": 0.3625619633839014,
                    "least IoU of matched boxes": 0.0,
                    "largest difference of their scores": 0.11660099029541016,
                ]),
            misses: [
                "stride8 differs by 3.13e-02 of its range, 1e-04 is allowed",
                "stride8 has a signal-to-noise ratio of 24.0 dB; 40 dB needed",
                "stride16 differs by 3.12e-02 of its range, 1e-04 is allowed",
                "stride16 has a signal-to-noise ratio of 24.2 dB; 40 dB needed",
                "stride32 differs by 3.14e-02 of its range, 1e-04 is allowed",
                "stride32 has a signal-to-noise ratio of 23.5 dB; 40 dB needed",
                "box agreement is 56.00%; 99.50% needed",
            ]),
        Expected(
            task: .detect, power: 12,
            outputs: [
                OutputComparison(
                    name: "stride8", maxAbs: 0.001953125, meanAbs: 0.0010007681777703208,
                    relativeMax: 0.0001221226272178778, snrDb: 72.19272850920336, worstSnrDb: 72.15535145955603,
                    cosine: 0.9999999698223835),
                OutputComparison(
                    name: "stride16", maxAbs: 0.001949310302734375, meanAbs: 0.0009929185131719958,
                    relativeMax: 0.00012204148658233266, snrDb: 72.38916100035227, worstSnrDb: 72.10026247487518,
                    cosine: 0.9999999712199265),
                OutputComparison(
                    name: "stride32", maxAbs: 0.0019521713256835938, meanAbs: 0.0010982622431280713,
                    relativeMax: 0.00012250574825457735, snrDb: 71.66231381901943, worstSnrDb: 71.51958463856015,
                    cosine: 0.9999999663010721),
            ],
            agreement: Agreement(
                name: "box agreement", share: 1.0,
                figures: [
                    "mean IoU of matched boxes": 0.9453022206337269,
                    "least IoU of matched boxes": 0.23436869705526422,
                    "largest difference of their scores": 0.00021189451217651367,
                ]),
            misses: [
                "stride8 differs by 1.22e-04 of its range, 1e-04 is allowed",
                "stride16 differs by 1.22e-04 of its range, 1e-04 is allowed",
                "stride32 differs by 1.23e-04 of its range, 1e-04 is allowed",
            ]),
        Expected(
            task: .segment, power: 4,
            outputs: [
                OutputComparison(
                    name: "logits", maxAbs: 0.49993133544921875, meanAbs: 0.25316984734187525,
                    relativeMax: 0.031277175393311006, snrDb: 23.96991759212755, worstSnrDb: 23.894561753711855,
                    cosine: 0.9980082373727112)
            ],
            agreement: Agreement(
                name: "pixel agreement", share: 0.958984375,
                figures: [
                    "mean IoU of the class maps": 0.9223912943414057
                ]),
            misses: [
                "logits differs by 3.13e-02 of its range, 1e-04 is allowed",
                "logits has a signal-to-noise ratio of 24.0 dB; 40 dB needed",
                "pixel agreement is 95.90%; 99.50% needed",
            ]),
        Expected(
            task: .segment, power: 12,
            outputs: [
                OutputComparison(
                    name: "logits", maxAbs: 0.0019526481628417969, meanAbs: 0.0009889517292928456,
                    relativeMax: 0.0001221634147332479, snrDb: 72.13468629330875, worstSnrDb: 72.05930891461179,
                    cosine: 0.9999999694310495)
            ],
            agreement: Agreement(
                name: "pixel agreement", share: 1.0,
                figures: [
                    "mean IoU of the class maps": 1.0
                ]),
            misses: [
                "logits differs by 1.22e-04 of its range, 1e-04 is allowed"
            ]),
    ]

    func testFiguresAreThoseOfThePythonCode() throws {
        for item in expected {
            let name = "\(item.task.rawValue), noise of 2^-\(item.power)"
            let found = try replay(bundle(item.task), noisy(item.power))
            XCTAssertEqual(found.images, 2, name)
            XCTAssertEqual(found.outputs.map(\.name), item.outputs.map(\.name), name)
            for (one, other) in zip(item.outputs, found.outputs) {
                XCTAssertEqual(one.maxAbs, other.maxAbs, name)
                XCTAssertEqual(one.meanAbs, other.meanAbs, accuracy: 1e-12, name)
                XCTAssertEqual(one.relativeMax, other.relativeMax, accuracy: 1e-12, name)
                XCTAssertEqual(one.snrDb, other.snrDb, accuracy: 1e-9, name)
                XCTAssertEqual(one.worstSnrDb, other.worstSnrDb, accuracy: 1e-9, name)
                XCTAssertEqual(one.cosine, other.cosine, accuracy: 1e-12, name)
            }
            XCTAssertEqual(found.agreement.name, item.agreement.name, name)
            XCTAssertEqual(found.agreement.share, item.agreement.share, accuracy: 1e-12, name)
            XCTAssertEqual(found.agreement.figures.keys.sorted(), item.agreement.figures.keys.sorted(), name)
            for (figure, value) in item.agreement.figures {
                XCTAssertEqual(try XCTUnwrap(found.agreement.figures[figure]), value, accuracy: 1e-5, figure)
            }
            XCTAssertEqual(found.misses, item.misses, name)
            XCTAssertEqual(found.passed, item.misses.isEmpty, name)
            XCTAssertEqual(found.tolerance, Tolerance(relativeMax: 1e-4, snrDb: 40, agreement: 0.995))
        }
    }

    func testTheReferenceItselfPasses() throws {
        for task in ModelTask.allCases {
            let found = try replay(bundle(task), reference)
            XCTAssertTrue(found.passed, "\(found.misses)")
            XCTAssertEqual(found.agreement.share, 1)
            for output in found.outputs {
                XCTAssertEqual(output.relativeMax, 0)
                XCTAssertEqual(output.snrDb, .infinity)
                XCTAssertEqual(output.cosine, 1, accuracy: 1e-12)
            }
        }
    }

    func testWhatIsNotFiniteOrNothingPassesNoTolerance() throws {
        for value in [Float.nan, .infinity, 0] {
            for task in ModelTask.allCases {
                for bound in [#"{"relative_max": 1e-4}"#, #"{"snr_db": 3.0}"#] {
                    let stated = try Json.parse(Data(bound.utf8))
                    let bundle = try bundle(task, change: { $0.with("parity/onnx/tolerance", stated) })
                    let found = try replay(bundle) { _, _, count in [Float](repeating: value, count: count) }
                    XCTAssertFalse(found.misses.isEmpty, "\(value), \(task), \(bound)")
                    XCTAssertFalse(found.passed)
                }
            }
        }
    }

    func testOneNaNInOnePictureIsAMiss() throws {
        let found = try replay(bundle(.segment)) { [self] picture, output, count in
            var values = reference(picture, output, count)
            if picture == 1 { values[300] = .nan }
            return values
        }
        XCTAssertTrue(try XCTUnwrap(found.outputs.first).relativeMax.isNaN)
        XCTAssertEqual(found.misses.count, 2)
    }

    func testClassesThatAreNearerThanTheSlackAreATie() throws {
        let range: Float = 16  // of which 1e-5 is 0.00016
        let cases: [(reference: [Float], found: [Float], expected: Double)] = [
            ([0, range, range - 0.0001], [0, 1, 2], 1),
            ([0, range, range - 0.0002], [0, 1, 2], 0),
            ([0, range, 1], [0, 1, 2], 0),
            ([0, range, 1], [1, 2, 2], 1),
        ]
        for item in cases {
            let bundle = try bundle(.classify, { _, _, _ in item.reference })
            XCTAssertEqual(try replay(bundle) { _, _, _ in item.found }.agreement.share, item.expected, "\(item)")
        }
    }

    func testABoxALittleBelowTheThresholdIsTheSameBox() throws {
        // One box of one cell, whose score is sigmoid(objectness) / 2; the threshold is 0.25.
        func maps(_ objectness: Float) -> Values {
            { _, output, count in
                var values = [Float](repeating: -20, count: count)
                if output > 0 { return values }
                for channel in 0...5 { values[channel * count / 24] = channel == 4 ? objectness : 0 }
                return values
            }
        }
        let cases: [(objectness: Float, expected: Double)] = [
            (0, 1), (-0.003, 1), (-0.02, 0),  // scores of 0.25, 0.2496, 0.2475
            (0.02, 1),  // of which the reference's 0.25 is the twin
        ]
        for item in cases {
            let found = try replay(bundle(.detect, maps(0)), maps(item.objectness))
            XCTAssertEqual(found.agreement.share, item.expected, "\(item)")
        }
    }

    func testProgressIsToldAndWhatItThrowsEndsTheReplay() throws {
        let bundle = try bundle(.classify)
        var told: [[Int]] = []
        _ = try GoldenReplay.run(bundle, format: .onnx, engine: engine(bundle, reference), decode: decodeRaw) {
            told.append([$0, $1])
        }
        XCTAssertEqual(told, [[0, 2], [1, 2], [2, 2]])
        XCTAssertThrowsError(
            try GoldenReplay.run(bundle, format: .onnx, engine: engine(bundle, reference), decode: decodeRaw) {
                if $0 + $1 == 3 { throw CancellationError() }
            }
        ) { XCTAssertTrue($0 is CancellationError) }
    }

    func testTheEngineStaysOpen() throws {
        let bundle = try bundle(.classify)
        let engine = engine(bundle, reference)
        _ = try GoldenReplay.run(bundle, format: .onnx, engine: engine, decode: decodeRaw)
        XCTAssertEqual(engine.closed, 0)
    }

    func testABundleWithoutToleranceOrGoldenInputsIsRefused() throws {
        let unverified = try bundle(.classify, change: { $0.with("parity/onnx", nil) })
        let message = refusal(.bundle) { try replay(unverified, reference) }
        XCTAssertTrue(message.contains("exported with --no-verify"), message)
        let bare = try bundle(.classify, change: { $0.with("golden", .list([])) })
        XCTAssertTrue(refusal(.bundle) { try replay(bare, reference) }.contains("has no golden inputs"))
    }
}
