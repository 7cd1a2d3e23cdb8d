// From JSON to a manifest: the fields, types and limits of manifest.schema.json. Then what the schema can't say, as
// xformer_mobile/artifact.py has it, and limits that keep what a phone takes from a stranger within its memory.

extension Manifest {
    /// What the 16 bits of a class map can tell apart.
    fileprivate static let maxClasses = 1 << 16

    /// All outputs together: 256 MiB, as much as a phone gives an app.
    private static let maxOutputValues = 1 << 26

    static func checkVersion(_ document: JsonField) throws {
        guard case .text(let version)? = try document.ifPresent("schema_version")?.value else { return }
        let major = version.unicodeScalars.prefix { $0 != "." }
        if !major.isEmpty, major.allSatisfy(isDigit), String(major) != "1" {
            throw ManifestProblem(
                message: "has schema version \(quote(version)); this version reads 1.x: update the app, or export "
                    + "the bundle with the xformer-mobile that the app is of")
        }
    }

    init(_ field: JsonField) throws {
        schemaVersion = try field["schema_version"].text("1.x") { version in
            let minor = version.unicodeScalars.dropFirst(2)
            return version.hasPrefix("1.") && !minor.isEmpty && minor.allSatisfy(isDigit)
        }
        generator = try Generator(field["generator"])
        model = try Model(field["model"])
        input = try Input(field["input"])
        outputs = try field["outputs"].list(1...Int.max, Output.init)
        postprocess = try Postprocess(field["postprocess"])
        precision = try field["precision"].text(oneOf: ["fp32", "fp16", "int8", "int8-weights"])
        artifacts = try field["artifacts"].list(1...Int.max, Artifact.init)
        golden = try field["golden"].list(Golden.init)
        parity = try field["parity"].map(Parity.init)
        report = try field.ifPresent("report").map(FileEntry.init)
        calibration = try field.ifPresent("calibration").map(Calibration.init)
        auto = try field.ifPresent("auto").map(Auto.init)
    }

    // MARK: - Agreement

    /// The parts agree with each other.
    func checkConsistency() throws {
        let classes = model.numClasses
        try agree(model.labels.count == classes, "\(model.labels.count) labels for \(classes) classes")
        try agree(Set(outputs.map(\.name)).count == outputs.count, "two outputs have one name")
        try agree(outputs.allSatisfy { $0.shape[0] == 1 }, "an output is for more than one image")
        var room = Self.maxOutputValues
        for output in outputs {
            let values = volume(of: output.shape) ?? .max
            try agree(
                values <= room,
                "output \(quote(output.name)) of \(describe(output.shape)) takes more memory than a phone has")
            room -= values
        }
        try agree(Set(artifacts.map(\.format)).count == artifacts.count, "two artifacts have one format")
        let rule = input.resize.rule
        try agree(
            model.task != .segment || rule == .resize,
            "class maps are for the rule 'resize', not '\(rule.rawValue)'")
        switch model.task {
        case .classify:
            try agreeOnLogits(rank: 2)
            try agree(postprocess.topK != nil, "its postprocess lacks top_k")
        case .detect:
            try agreeOnBoxes()
        case .segment:
            try agreeOnLogits(rank: 4)
            guard let palette = postprocess.palette else { throw contradiction("its postprocess lacks palette") }
            try agree(palette.count == classes, "\(palette.count) colors for \(classes) classes")
        }
    }

    private func agreeOnLogits(rank: Int) throws {
        let shape = shape(of: "logits") ?? []
        try agree(
            shape.count == rank && shape[1] == model.numClasses,
            "no output logits of rank \(rank) and \(model.numClasses) classes")
    }

    private func agreeOnBoxes() throws {
        let needed: [(String, Any?)] = [
            ("anchors", postprocess.anchors), ("iou_threshold", postprocess.iouThreshold),
            ("max_detections", postprocess.maxDetections), ("score_threshold", postprocess.scoreThreshold),
            ("strides", postprocess.strides),
        ]
        let missing = needed.filter { $0.1 == nil }.map(\.0)
        try agree(missing.isEmpty, "a detector's postprocess lacks \(missing.joined(separator: ", "))")
        let strides = postprocess.strides ?? []
        let anchors = postprocess.anchors ?? []
        try agree(
            strides.count == anchors.count && !strides.isEmpty,
            "\(strides.count) strides for \(anchors.count) scales of anchors")
        for (stride, scale) in zip(strides, anchors) {
            let shape = shape(of: "stride\(stride)") ?? []
            // Labels have been counted: neither number is large.
            try agree(
                shape.count == 4 && shape[1] == scale.count * (5 + model.numClasses),
                "no output stride\(stride) of \(scale.count) anchors times 5 + \(model.numClasses) channels")
        }
    }

    private func shape(of output: String) -> [Int]? { outputs.first { $0.name == output }?.shape }

    private func agree(_ holds: Bool, _ problem: @autoclosure () -> String) throws {
        if !holds { throw contradiction(problem()) }
    }

    private func contradiction(_ problem: String) -> ManifestProblem {
        ManifestProblem(message: "contradicts itself: \(problem)")
    }
}

// MARK: - Parts

extension Manifest.Generator {
    fileprivate init(_ field: JsonField) throws {
        name = try field["name"].text()
        version = try field["version"].text()
    }
}

extension Manifest.Model {
    fileprivate init(_ field: JsonField) throws {
        task = try field["task"].choice()
        variant = try field["variant"].name()
        numClasses = try field["num_classes"].int(from: 1)
        labels = try field["labels"].list(1...Manifest.maxClasses) { label in
            try label.text("one line of printable text", where: isLabel)
        }
        parameters = try field["parameters"].int(from: 1)
        macs = try field["macs"].int(from: 1)
        weights = try Manifest.Weights(field["weights"])
    }
}

extension Manifest.Weights {
    fileprivate init(_ field: JsonField) throws {
        source = try field["source"].choice()
        sha256 = try field["sha256"].sha256()
        part = try field.ifPresent("part")?.text()
        seed = try field.ifPresent("seed")?.int()
    }
}

extension Manifest.Input {
    fileprivate init(_ field: JsonField) throws {
        name = try field["name"].name()
        let sides = try field["shape"].list(of: 4) { $0 }
        _ = try sides[0].int(1...1)
        let (height, width) = (try sides[1].side(), try sides[2].side())
        _ = try sides[3].int(3...3)
        size = try ImageSize(height: height, width: width)
        _ = try field["dtype"].text(oneOf: ["uint8"])
        _ = try field["layout"].text(oneOf: ["NHWC"])
        _ = try field["color"].text(oneOf: ["RGB"])
        resize = try Manifest.Resize(field["resize"])
        normalization = try Manifest.Normalization(field["normalization"])
    }
}

extension Manifest.Resize {
    fileprivate init(_ field: JsonField) throws {
        rule = try field["rule"].choice()
        _ = try field["resampling"].text(oneOf: ["pillow_bilinear_antialiased"])
        padColor = try field.ifPresent("pad_color")?.color()
        coverRatio = try field.ifPresent("cover_ratio")?.list(of: 2) { try $0.int(from: 1) }
    }
}

extension Manifest.Normalization {
    fileprivate init(_ field: JsonField) throws {
        try field["in_graph"].isTrue()
        mean = try field["mean"].list(of: 3) { try $0.double() }
        std = try field["std"].list(of: 3) { try $0.double() }
    }
}

extension Manifest.Output {
    fileprivate init(_ field: JsonField) throws {
        name = try field["name"].name()
        shape = try field["shape"].list(2...4) { try $0.int(from: 1) }
        _ = try field["dtype"].text(oneOf: ["float32"])
        meaning = try field["meaning"].text()
    }
}

extension Manifest.Postprocess {
    fileprivate init(_ field: JsonField) throws {
        topK = try field.ifPresent("top_k")?.int(from: 1)
        anchors = try field.ifPresent("anchors")?.list { scale in
            try scale.list(1...Int.max) { anchor in
                let sides = try anchor.list(of: 2) { try $0.positive() }
                return Anchor(width: Float(sides[0]), height: Float(sides[1]))
            }
        }
        strides = try field.ifPresent("strides")?.list { try $0.int(from: 1) }
        scoreThreshold = try field.ifPresent("score_threshold")?.share()
        iouThreshold = try field.ifPresent("iou_threshold")?.share()
        maxDetections = try field.ifPresent("max_detections")?.int(from: 1)
        palette = try field.ifPresent("palette")?.list { try $0.color() }
    }
}

extension Manifest.Artifact {
    fileprivate init(_ field: JsonField) throws {
        format = try field["format"].choice()
        file = try field["file"].path()
        sha256 = try field["sha256"].sha256()
        sizeBytes = try field["size_bytes"].int(from: 1)
        inputDtype = try field["input_dtype"].text()
        inputLayout = try field["input_layout"].text()
        requires = try field["requires"].map { $0.literal }.compactMapValues { $0 }
        tools = try field["tools"].map { try $0.text() }
        quantization = try field.ifPresent("quantization").map(Manifest.Quantization.init)
    }
}

extension Manifest.Quantization {
    fileprivate init(_ field: JsonField) throws {
        fp32SizeBytes = try field["fp32_size_bytes"].int(from: 1)
        sizeRatio = try field["size_ratio"].positive()
        target = try field.ifPresent("target")?.text(oneOf: ["arm", "x86"])
        ranges = try field.ifPresent("ranges").map(Manifest.Ranges.init)
        macs = try Manifest.Int8Share(field["macs"])
        ops = try Manifest.Int8Share(field["ops"])
        movedBytes = try Manifest.Int8Share(field["moved_bytes"])
        weights = try Manifest.Int8Share(field["weights"])
        qdqPairs = try field["qdq_pairs"].int(from: 0)
        floatIslands = try field["float_islands"].list(Manifest.FloatIsland.init)
        floatIslandCount = try field["float_island_count"].int(from: 0)
    }
}

extension Manifest.Ranges {
    fileprivate init(_ field: JsonField) throws {
        method = try field["method"].text()
        snrDb = try field["snr_db"].map { try $0.doubleOrNull() }
    }
}

extension Manifest.Int8Share {
    fileprivate init(_ field: JsonField) throws {
        int8 = try field["int8"].int(from: 0)
        all = try field["all"].int(from: 0)
        share = try field["share"].share()
    }
}

extension Manifest.FloatIsland {
    fileprivate init(_ field: JsonField) throws {
        ops = try field["ops"].int(from: 1)
        macs = try field["macs"].int(from: 0)
        kinds = try field["kinds"].map { try $0.int(from: 1) }
        first = try field["first"].text()
    }
}

extension Manifest.Calibration {
    fileprivate init(_ field: JsonField) throws {
        source = try field["source"].name()
        pictures = try field["pictures"].int(from: 1)
        seed = try field["seed"].int(from: 0)
        skipped = try field["skipped"].int(from: 0)
    }
}

extension Manifest.Auto {
    fileprivate init(_ field: JsonField) throws {
        maxDrop = try field["max_drop"].double(from: 0)
        metric = try field["metric"].text()
        pictures = try field["pictures"].int(from: 1)
        reference = try field["reference"].double()
        recipe = try field["recipe"].text()
        floatParts = try field["float_parts"].list(Manifest.FloatPart.init)
        tried = try field["tried"].list { try $0["recipe"].literal ?? "" }
    }
}

extension Manifest.FloatPart {
    fileprivate init(_ field: JsonField) throws {
        path = try field["path"].text()
        macs = try field["macs"].int(from: 0)
        noise = try field["noise"].double(from: 0)
    }
}

extension Manifest.Golden {
    fileprivate init(_ field: JsonField) throws {
        input = try Manifest.FileEntry(field["input"])
        outputs = try field["outputs"].map(Manifest.FileEntry.init)
    }
}

extension Manifest.FileEntry {
    fileprivate init(_ field: JsonField) throws {
        file = try field["file"].path()
        sha256 = try field["sha256"].sha256()
    }
}

extension Manifest.Parity {
    fileprivate init(_ field: JsonField) throws {
        engine = try field["engine"].text()
        images = try field["images"].int(from: 1)
        passed = try field["passed"].bool()
        tolerance = try field["tolerance"].map { try $0.double() }
        outputs = try field["outputs"].map { output in try output.map { try $0.doubleOrNull() } }
        agreement = try Manifest.ParityAgreement(field["agreement"])
    }
}

extension Manifest.ParityAgreement {
    fileprivate init(_ field: JsonField) throws {
        name = try field["name"].text()
        share = try field["share"].share()
    }
}

// MARK: - Values

extension JsonField {
    fileprivate func sha256() throws -> String {
        try text("64 digits of 0-9 and a-f") { text in
            text.utf8.count == 64 && text.utf8.allSatisfy("0123456789abcdef".utf8.contains)
        }
    }

    fileprivate func path() throws -> String { try text("a path below the bundle", where: isBundlePath) }

    fileprivate func side() throws -> Int {
        try int("multiples of \(ImageSize.stride) up to \(ImageSize.maxSide)", where: ImageSize.isSide)
    }

    fileprivate func color() throws -> Rgb {
        let parts = try list(of: 3) { UInt8(try $0.int(0...255)) }
        return Rgb(red: parts[0], green: parts[1], blue: parts[2])
    }
}

private func isDigit(_ letter: Unicode.Scalar) -> Bool { ("0"..."9").contains(letter) }

/// Whether a path stays below the bundle's directory, by its letters: relative, no "..", no hidden part.
func isBundlePath(_ path: String) -> Bool {
    guard path.utf8.count <= 255 else { return false }
    let letters = Set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.".utf8)
    return path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).allSatisfy { part in
        !part.isEmpty && part.first != UInt8(ascii: ".") && part.allSatisfy(letters.contains)
    }
}

/// Whether a text is one line of printable text. A letter that this system's Unicode is too old for is let through.
private func isLabel(_ label: String) -> Bool {
    let letters = label.unicodeScalars.filter { $0 != " " }
    return !letters.isEmpty
        && letters.allSatisfy { letter in
            let category = letter.properties.generalCategory
            return category != .spaceSeparator && !unprintable.contains(category)
        }
}
