import TestSupport
import XCTest

@testable import XFormerCore

/// A manifest is taken if the schema and the Python code take it; everything else is refused in one line.
final class ManifestTests: XCTestCase {
    private func parse(_ text: String) throws -> Manifest {
        try Manifest.parse(Data(text.utf8), name: "manifest.json")
    }

    /// The manifest with a JSON text, which need not be JSON, at a path; nil takes away what is there.
    private func edited(_ manifest: Json, _ path: String, _ value: String?) -> String {
        guard let value else { return manifest.with(path, nil).written }
        return manifest.with(path, .text("@")).written.replacingOccurrences(of: "\"@\"", with: value)
    }

    func testAnExportsManifestIsRead() throws {
        for task in ModelTask.allCases {
            let manifest = try parse(TestBundle.manifest(of: task).written)
            XCTAssertEqual(manifest.model.task, task)
            XCTAssertEqual(manifest.model.labels, ["cat", "dog", "cup"])
            XCTAssertEqual(manifest.input.size, try ImageSize(height: 64, width: 64))
            XCTAssertEqual(manifest.golden.count, 2)
            XCTAssertEqual(Set(manifest.artifacts.map(\.format)).count, manifest.artifacts.count)
        }
    }

    func testEveryPartOfAManifestIsRead() throws {
        let manifest = try parse(TestBundle.manifest(of: .segment).written)
        XCTAssertEqual(manifest.schemaVersion, "1.2")
        XCTAssertEqual(manifest.generator, .init(name: "xformer-mobile", version: "0.1.0"))
        XCTAssertEqual(manifest.artifacts.map(\.format), [.onnx, .coreml, .tflite])
        XCTAssertEqual(
            manifest.artifacts[1].requires,
            ["minimum_ios": "17", "minimum_macos": "14", "specification_version": "8"])
        XCTAssertEqual(manifest.artifacts[1].tools["coremltools"], "9.0")
        let quantization = try XCTUnwrap(manifest.artifacts[0].quantization)
        XCTAssertEqual(quantization.macs.share, 0.921778)
        XCTAssertEqual(quantization.ranges?.snrDb["entropy"], .some(nil))
        XCTAssertEqual(quantization.ranges?.snrDb["mse"], 9.59)
        XCTAssertEqual(manifest.calibration?.source, "synthetic")
        XCTAssertEqual(manifest.auto?.floatParts.map(\.noise), [0.0125])
        XCTAssertEqual(manifest.model.weights.part, "ema")
        XCTAssertEqual(manifest.model.macs, 19_947_008)
        XCTAssertEqual(manifest.input.normalization.std, [0.229, 0.224, 0.225])
        XCTAssertEqual(manifest.postprocess.palette?[1], Rgb(red: 128, green: 0, blue: 0))
        XCTAssertEqual(manifest.report?.file, "report.json")
        XCTAssertEqual(manifest.parity["onnx"]?.tolerance["snr_db"], 3)
        let detect = try parse(TestBundle.manifest(of: .detect).written)
        XCTAssertEqual(detect.postprocess.anchors?[0][0], Anchor(width: 1.5384616, height: 2))
        XCTAssertEqual(detect.input.resize.padColor, Rgb(red: 114, green: 114, blue: 114))
    }

    func testFieldsOfALaterMinorVersionAreIgnored() throws {
        let later = try Json.parse(Data(#"{"lines": "two\nlines", "list": [1, null, 1e999, {}]}"#.utf8))
        var manifest = try TestBundle.manifest(of: .detect).with("schema_version", .text("1.7"))
        for place in ["later", "model/later", "input/resize/later", "outputs/0/later", "parity/onnx/later"] {
            manifest = manifest.with(place, later)
        }
        XCTAssertEqual(try parse(manifest.written).model.task, .detect)
    }

    func testAsManyClassesAsThereMayBe() throws {
        let most = 65_536
        let colors = (0..<most).map { _ in Json.list([.number("1"), .number("2"), .number("3")]) }
        let manifest = try TestBundle.manifest(of: .segment)
            .with("model/labels", .list((0..<most).map { .text("class \($0)") }))
            .with("model/num_classes", .number("\(most)"))
            .with("outputs/0/shape/1", .number("\(most)"))
            .with("postprocess/palette", .list(colors))
        XCTAssertEqual(try parse(manifest.written).model.labels.last, "class 65535")
    }

    // MARK: - What is refused

    /// What becomes of a task's manifest when a JSON text is at a path; nil takes away what is there.
    private struct Bad {
        let name: String
        let path: String
        let value: String?
        let problem: String
        let task: ModelTask

        init(_ name: String, _ path: String, _ value: String?, _ problem: String, _ task: ModelTask = .classify) {
            self.name = name
            self.path = path
            self.value = value
            self.problem = problem
            self.task = task
        }
    }

    private let badManifests: [Bad] = [
        // paths
        Bad("path upwards", "artifacts/0/file", #""../model.onnx""#, "at artifacts/0/file"),
        Bad("path upwards inside", "artifacts/0/file", #""golden/../../model.onnx""#, "at artifacts/0/file"),
        Bad("golden path upwards", "golden/0/input/file", #""../classify/golden/000.png""#, "at golden/0/input/file"),
        Bad("golden output upwards", "golden/0/outputs/logits/file", #""../x""#, "at golden/0/outputs/logits/file"),
        Bad("report upwards", "report/file", #""..""#, "at report/file"),
        Bad("absolute path", "artifacts/0/file", #""/etc/passwd""#, "at artifacts/0/file"),
        Bad("path with backslashes", "artifacts/0/file", #""golden\\000.png""#, "at artifacts/0/file"),
        Bad("path of a drive", "artifacts/0/file", #""C:model.onnx""#, "at artifacts/0/file"),
        Bad("hidden file", "artifacts/0/file", #"".model.onnx""#, "at artifacts/0/file"),
        Bad("hidden directory", "artifacts/0/file", #""golden/.hidden/model.onnx""#, "at artifacts/0/file"),
        Bad("empty path", "artifacts/0/file", #""""#, "at artifacts/0/file"),
        Bad("empty part", "artifacts/0/file", #""golden//000.png""#, "at artifacts/0/file"),
        Bad("path with NUL", "artifacts/0/file", #""model\u0000.onnx""#, "at artifacts/0/file"),
        Bad("path and a newline", "artifacts/0/file", #""model.onnx\n""#, "at artifacts/0/file"),
        Bad("long path", "artifacts/0/file", "\"" + String(repeating: "m", count: 256) + "\"", "at artifacts/0/file"),
        // sums
        Bad("short sha256", "artifacts/0/sha256", #""00""#, "at artifacts/0/sha256"),
        Bad(
            "sha256 in capitals", "artifacts/0/sha256", "\"" + String(repeating: "A", count: 64) + "\"",
            "at artifacts/0/sha256"),
        Bad(
            "sha256 and a newline", "report/sha256", "\"" + String(repeating: "a", count: 64) + "\\n\"",
            "at report/sha256"),
        Bad("weights' sha256", "model/weights/sha256", #""""#, "at model/weights/sha256"),
        // versions
        Bad("newer major version", "schema_version", #""2.0""#, "this version reads 1.x: update"),
        Bad("older major version", "schema_version", #""0.9""#, "has schema version '0.9'"),
        Bad(
            "version of many digits", "schema_version", "\"" + String(repeating: "9", count: 500) + ".0\"",
            "has schema version"),
        Bad("version no number", "schema_version", #""one""#, "at schema_version"),
        Bad("version no text", "schema_version", "1.0", "at schema_version"),
        Bad("no version", "schema_version", nil, "at its top level: 'schema_version' is missing"),
        // the model
        Bad("no model", "model", nil, "'model' is missing"),
        Bad("unknown task", "model/task", #""caption""#, "at model/task: got 'caption'; valid: classify or detect"),
        Bad("another task", "model/task", #""segment""#, "contradicts itself"),
        Bad("too few labels", "model/labels/0", nil, "2 labels for 3 classes"),
        Bad("another number of classes", "model/num_classes", "81", "3 labels for 81 classes", .detect),
        Bad("no labels", "model/labels", "[]", "at model/labels"),
        Bad(
            "too many labels", "model/labels", "[" + String(repeating: "\"a\",", count: 65_536) + "\"a\"]",
            "got a list of 65537; valid: 1 to 65536"),
        Bad("label no text", "model/labels/1", "7", "at model/labels/1: got 7; valid: a text"),
        Bad("empty label", "model/labels/1", #""""#, "at model/labels/1"),
        Bad("blank label", "model/labels/1", #""  ""#, "at model/labels/1"),
        Bad(
            "label of two lines", "model/labels/1", #""a\nb""#,
            "model/labels/1: got 'a\u{fffd}b'; valid: one line of printable text"),
        Bad("label that moves the cursor", "model/labels/1", #""\u001b[2J""#, "at model/labels/1"),
        Bad("label that turns the text", "model/labels/1", #""a\u202eb""#, "at model/labels/1"),
        Bad("label with half a letter", "model/labels/1", #""\ud800""#, "is not JSON: expected the rest of a letter"),
        Bad("unknown weights", "model/weights/source", #""found""#, "at model/weights/source"),
        Bad("parameters of none", "model/parameters", "0", "at model/parameters"),
        Bad("seed no integer", "model/weights/seed", "0.5", "at model/weights/seed"),
        Bad("part null", "model/weights/part", "null", "at model/weights/part: got null"),
        // input and outputs
        Bad("input size off the grid", "input/shape/1", "100", "at input/shape/1"),
        Bad("input size of zero", "input/shape/1", "0", "at input/shape/1"),
        Bad("input size too large", "input/shape/2", "4160", "at input/shape/2"),
        Bad("input size no integer", "input/shape/1", "64.0", "at input/shape/1: got 64.0; valid: an integer"),
        Bad("input size in quotes", "input/shape/1", #""64""#, "at input/shape/1: got '64'; valid: an integer"),
        Bad("input size as a power", "input/shape/1", "64e0", "at input/shape/1"),
        Bad("input size beyond 32 bits", "input/shape/1", "4294967360", "at input/shape/1"),
        Bad("input of two images", "input/shape/0", "2", "at input/shape/0"),
        Bad("input of four channels", "input/shape/3", "4", "at input/shape/3"),
        Bad("input of rank 3", "input/shape/0", nil, "at input/shape: got a list of 3; valid: 4"),
        Bad("input in BGR", "input/color", #""BGR""#, "at input/color"),
        Bad("input of floats", "input/dtype", #""float32""#, "at input/dtype"),
        Bad("input channels first", "input/layout", #""NCHW""#, "at input/layout"),
        Bad("input not normalized", "input/normalization/in_graph", "false", "at input/normalization/in_graph"),
        Bad("mean of two", "input/normalization/mean/0", nil, "at input/normalization/mean"),
        Bad("unknown rule", "input/resize/rule", #""stretch""#, "at input/resize/rule"),
        Bad("unknown resampling", "input/resize/resampling", #""nearest""#, "at input/resize/resampling"),
        Bad(
            "class map of a letterbox", "input/resize/rule", #""letterbox""#,
            "class maps are for the rule 'resize', not 'letterbox'", .segment),
        Bad("no outputs", "outputs", "[]", "at outputs"),
        Bad("output of another name", "outputs/0/name", #""scores""#, "no output logits of rank 2"),
        Bad("output of another rank", "outputs/0/shape", "[1, 3]", "no output logits of rank 4", .segment),
        Bad("output of other classes", "outputs/0/shape/1", "4", "no output logits of rank 4", .segment),
        Bad("output for two images", "outputs/0/shape/0", "2", "an output is for more than one image"),
        Bad(
            "output whose size overflows", "outputs/0/shape", "[1, 3, 2147483647, 2147483647]",
            "takes more memory than a phone has", .segment),
        Bad(
            "output whose size is zero in 32 bits", "outputs/0/shape", "[1, 3, 1073741824, 4]",
            "takes more memory than a phone has", .segment),
        Bad(
            "output of more than 256 MiB", "outputs/0/shape", "[1, 3, 4730, 4730]",
            "takes more memory than a phone has", .segment),
        Bad("output in halves", "outputs/0/dtype", #""float16""#, "at outputs/0/dtype"),
        Bad("detector's output missing", "outputs/1", nil, "no output stride16", .detect),
        Bad("detector's output of other channels", "outputs/1/shape/1", "25", "no output stride16", .detect),
        Bad("meaning no text", "outputs/0/meaning", "3", "at outputs/0/meaning"),
        // postprocessing
        Bad("no postprocess", "postprocess", nil, "'postprocess' is missing"),
        Bad("no top_k", "postprocess/top_k", nil, "its postprocess lacks top_k"),
        Bad("top_k of zero", "postprocess/top_k", "0", "at postprocess/top_k"),
        Bad("top_k no integer", "postprocess/top_k", "5.0", "at postprocess/top_k"),
        Bad("no palette", "postprocess/palette", nil, "its postprocess lacks palette", .segment),
        Bad("too few colors", "postprocess/palette/0", nil, "2 colors for 3 classes", .segment),
        Bad("color out of range", "postprocess/palette/0/0", "256", "at postprocess/palette/0", .segment),
        Bad("color of two", "postprocess/palette/0/0", nil, "at postprocess/palette/0", .segment),
        Bad("no anchors", "postprocess/anchors", nil, "lacks anchors", .detect),
        Bad("no strides", "postprocess/strides", nil, "lacks strides", .detect),
        Bad("no score threshold", "postprocess/score_threshold", nil, "lacks score_threshold", .detect),
        Bad("no IoU threshold", "postprocess/iou_threshold", nil, "lacks iou_threshold", .detect),
        Bad("no limit", "postprocess/max_detections", nil, "lacks max_detections", .detect),
        Bad("two scales of anchors", "postprocess/anchors/0", nil, "3 strides for 2 scales of anchors", .detect),
        Bad("two anchors at a scale", "postprocess/anchors/0/0", nil, "no output stride8 of 2 anchors", .detect),
        Bad("no anchors at a scale", "postprocess/anchors/0", "[]", "at postprocess/anchors/0", .detect),
        Bad("anchor of three", "postprocess/anchors/0/0", "[1, 2, 3]", "at postprocess/anchors/0/0", .detect),
        Bad("anchor of zero", "postprocess/anchors/0/0/0", "0", "at postprocess/anchors/0/0", .detect),
        Bad("huge anchor", "postprocess/anchors/0/0/0", "1e31", "at postprocess/anchors/0/0/0", .detect),
        Bad(
            "anchor of many digits", "postprocess/anchors/0/0/0", "1" + String(repeating: "0", count: 400),
            "0/0/0", .detect),
        Bad("strides of no output", "postprocess/strides", "[8, 16, 64]", "no output stride64", .detect),
        Bad("stride no integer", "postprocess/strides", "[8.0, 16, 32]", "at postprocess/strides/0", .detect),
        Bad("threshold above one", "postprocess/score_threshold", "1.5", "postprocess/score_threshold", .detect),
        Bad("threshold below zero", "postprocess/iou_threshold", "-0.1", "postprocess/iou_threshold", .detect),
        Bad("infinite threshold", "postprocess/iou_threshold", "1e999", "postprocess/iou_threshold", .detect),
        Bad("threshold not a number", "postprocess/iou_threshold", "NaN", "is not JSON", .detect),
        Bad(
            "limit beyond 64 bits", "postprocess/max_detections", "9223372036854775808",
            "at postprocess/max_detections: got 9223372036854775808; valid", .detect),
        // the rest
        Bad("unknown precision", "precision", #""fp8""#, "at precision: got 'fp8'; valid: fp32 or fp16 or int8"),
        Bad("unknown format", "artifacts/0/format", #""keras""#, "at artifacts/0/format"),
        Bad("a format twice", "artifacts/1/format", #""onnx""#, "two artifacts have one format"),
        Bad("no artifacts", "artifacts", "[]", "at artifacts"),
        Bad("artifact of no bytes", "artifacts/0/size_bytes", "0", "at artifacts/0/size_bytes"),
        Bad("requires no object", "artifacts/0/requires", "[]", "at artifacts/0/requires"),
        Bad("tool without a version", "artifacts/0/tools/onnx", "1", "at artifacts/0/tools/onnx"),
        Bad("parity of no pictures", "parity/onnx/images", "0", "at parity/onnx/images"),
        Bad("parity as a text", "parity/onnx/passed", #""true""#, "at parity/onnx/passed"),
        Bad("share above one", "parity/onnx/agreement/share", "1.01", "at parity/onnx/agreement/share"),
        Bad("tolerance null", "parity/onnx/tolerance/agreement", "null", "at parity/onnx/tolerance/agreement"),
        Bad("figure no number", "parity/onnx/outputs/logits/cosine", #""1""#, "at parity/onnx/outputs/logits/cosine"),
        Bad("golden no list", "golden", "{}", "at golden: got an object; valid: a list"),
        Bad("report null", "report", "null", "at report: got null"),
        Bad("quantization without ops", "artifacts/0/quantization/ops", nil, "'ops' is missing", .segment),
        Bad("share of int8 above one", "artifacts/0/quantization/macs/share", "2", "macs/share", .segment),
        Bad("unknown target", "artifacts/0/quantization/target", #""mips""#, "quantization/target", .segment),
        Bad("size ratio of zero", "artifacts/0/quantization/size_ratio", "0", "size_ratio", .segment),
        Bad("island of no ops", "artifacts/0/quantization/float_islands/0/ops", "0", "islands/0/ops", .segment),
        Bad(
            "island of negative cost", "artifacts/0/quantization/float_islands/0/macs", "-1", "islands/0/macs", .segment
        ),
        Bad("part of negative cost", "auto/float_parts/0/macs", "-1", "at auto/float_parts/0/macs", .segment),
        Bad("part of negative noise", "auto/float_parts/0/noise", "-0.5", "at auto/float_parts/0/noise", .segment),
        Bad("negative count in int8", "artifacts/0/quantization/ops/int8", "-1", "quantization/ops/int8", .segment),
        Bad("calibration of no pictures", "calibration/pictures", "0", "at calibration/pictures", .segment),
        Bad("try without a recipe", "auto/tried/0/recipe", nil, "auto/tried/0: 'recipe' is missing", .segment),
        Bad("drop below zero", "auto/max_drop", "-1", "at auto/max_drop", .segment),
        // what Swift alone would take or stumble over
        Bad("an integer below 64 bits", "model/weights/seed", "-9223372036854775809", "at model/weights/seed"),
        Bad(
            "classes beyond memory", "model/num_classes", "9223372036854775807", "3 labels for 9223372036854775807",
            .detect),
        Bad("stride of 64 bits", "postprocess/strides/0", "9223372036854775807", "no output stride92233720", .detect),
        Bad(
            "output whose size overflows 64 bits", "outputs/0/shape", "[1, 4294967296, 4294967296, 4]",
            "takes more memory"),
        Bad("path with a combining accent", "artifacts/0/file", #""model.onnx\u0301""#, "at artifacts/0/file"),
        Bad("path of Arabic digits", "artifacts/0/file", #""\u0661""#, "at artifacts/0/file"),
        Bad("version of Arabic digits", "schema_version", #""1.\u0661""#, "at schema_version"),
        Bad(
            "output names that look the same", "outputs",
            #"[{"name": "\u00e9", "shape": [1, 3], "dtype": "float32", "meaning": ""},"#
                + #"{"name": "e\u0301", "shape": [1, 3], "dtype": "float32", "meaning": ""}]"#,
            "two outputs have one name"),
    ]

    func testABadManifestIsRefused() throws {
        for bad in badManifests {
            let text = edited(try TestBundle.manifest(of: bad.task), bad.path, bad.value)
            let message = refusal(.bundle, bad.name) { try parse(text) }
            XCTAssertTrue(message.hasPrefix("manifest.json "), "\(bad.name): \(message)")
            XCTAssertTrue(message.contains(bad.problem), "\(bad.name): \(message)")
        }
        print("manifests that are refused: \(badManifests.count)")
    }

    func testOutputsThatAreLargeTogetherAreRefused() throws {
        let manifest = try TestBundle.manifest(of: .classify)
        let other = #"{"name": "other", "shape": [1, 8192, 8192], "dtype": "float32", "meaning": ""}"#
        let outputs = (manifest.at("outputs")?.items ?? []) + [try Json.parse(Data(other.utf8))]
        let message = refusal(.bundle) { try parse(manifest.with("outputs", .list(outputs)).written) }
        XCTAssertTrue(message.contains("output 'other' of (1, 8192, 8192) takes more memory"), message)
    }

    func testABadTextIsRefused() throws {
        let bad = [
            ("", "is not JSON"),
            ("{", "is not JSON"),
            ("[]", "at its top level: got a list; valid: an object"),
            ("1", "at its top level: got 1; valid: an object"),
            ("null", "at its top level: got null; valid: an object"),
            (String(repeating: "[", count: 100_000), "is not JSON: it is nested more than 64 deep"),
            (#"{"schema_version": "1.0", "schema_version": "1.0"}"#, "stands twice"),
            (#"{"schema_version": "1.0", "later": NaN}"#, "is not JSON"),
        ]
        for (text, problem) in bad {
            let message = refusal(.bundle, String(text.prefix(50))) { try parse(text) }
            XCTAssertTrue(message.contains(problem), message)
        }
        let deep = String(repeating: "[", count: 100_000) + String(repeating: "]", count: 100_000)
        let text = edited(try TestBundle.manifest(of: .classify), "later", deep)
        XCTAssertTrue(refusal(.bundle) { try parse(text) }.contains("nested"))
        let huge = Data(count: Manifest.maxBytes + 1)
        XCTAssertEqual(
            refusal(.bundle) { try Manifest.parse(huge, name: "manifest.json") },
            "manifest.json has more than 16777216 bytes; a manifest is smaller")
    }

    func testNamesOfAStrangerMakeNoLongMessage() throws {
        let name = String(repeating: "x\\n", count: 1000)
        let text = edited(try TestBundle.manifest(of: .classify), "parity", #"{"\#(name)": {"engine": 1}}"#)
        XCTAssertLessThan(refusal(.bundle) { try parse(text) }.count, 300)
    }

    // MARK: - Drawn manifests

    /// The message, or nil where it is a manifest.
    private func refusalOrNil(_ content: Data) throws -> String? {
        do {
            _ = try Manifest.parse(content, name: "manifest.json")
            return nil
        } catch XFormerError.bundle(let message) {
            return message
        }
    }

    func testBytesChangedAtRandomAreAManifestOrRefused() throws {
        for task in ModelTask.allCases {
            let content = Data(try TestBundle.manifest(of: task).written.utf8)
            try forSeeds(150) { random in
                _ = try refusalOrNil(random.mutated(content))
            }
        }
    }

    /// Values exchanged, taken away or put twice at random: what is taken follows the schema; what follows the schema is
    /// taken, unless it contradicts itself or is beyond what the schema has words for.
    func testAManifestIsTakenWhereTheSchemaTakesIt() throws {
        let schema = try JsonSchema("manifest")
        for task in ModelTask.allCases {
            let original = try TestBundle.manifest(of: task)
            let paths = original.paths
            XCTAssertEqual(try schema.problems(of: original), [])
            var taken = 0
            try forSeeds(400) { random in
                let manifest = try mutated(original, paths, &random)
                let problems = try schema.problems(of: manifest)
                if let refusal = try refusalOrNil(Data(manifest.written.utf8)) {
                    XCTAssertTrue(
                        !problems.isEmpty || beyondTheSchema.contains { refusal.contains($0) },
                        "refused, but the schema takes it: \(refusal)")
                } else {
                    taken += 1
                    XCTAssertEqual(problems, [], "taken, but the schema does not")
                }
            }
            XCTAssertGreaterThan(taken, 25, "the test says little")
        }
    }

    /// The refusals that have no word in the schema: see documents.py and check_labels in the Python code.
    private let beyondTheSchema = [
        "contradicts itself", "valid: one line of printable text", "an integer of 64 bits", "got a list of 65537",
    ]

    private let values = [
        "null", "true", "false", "0", "1", "-1", "2", "3", "5.0", "0.5", "1e31", "4294967296", "1e999", #""""#,
        #""x""#, #""../x""#, #""onnx""#, #""1.9""#, #""1""#, "[]", "{}", "[1,2]", "[1,2,3]", #"{"a":1}"#, "[[]]",
    ]

    private func mutated(_ manifest: Json, _ paths: [String], _ random: inout Seeded) throws -> Json {
        let path = try XCTUnwrap(paths.randomElement(using: &random))
        let old = try XCTUnwrap(manifest.at(path))
        switch Int.random(in: 0..<4, using: &random) {
        case 0: return manifest.with(path, nil)
        case 1:
            return manifest.with(path, try Json.parse(Data(values[.random(in: 0..<values.count, using: &random)].utf8)))
        case 2: return manifest.with(path, manifest.at(paths[.random(in: 0..<paths.count, using: &random)]))
        default: break
        }
        switch old {
        case .list(let items): return manifest.with(path, .list(items + items))
        case .object: return manifest.with("\(path)/later", .number("1"))
        case .text(let text):
            return manifest.with(path, .text(text + ["a", "/", ".", "x"][.random(in: 0..<4, using: &random)]))
        case .number(let literal):
            let number = Int(Double(literal) ?? 0) + .random(in: -2...2, using: &random)
            return manifest.with(path, .number("\(number)"))
        case .bool(let bool): return manifest.with(path, .bool(!bool))
        case .null: return manifest.with(path, .number("1"))
        }
    }
}
