/// Measures how long a model takes on this device, each phase apart.
public enum Benchmark {
    /// Opens the engine, warms it up and times it; closes it in any case.
    ///
    /// `open` opens an engine for the bundle's artifact of `format`. `report` is called before each run: what it throws
    /// ends the benchmark and is passed on, so that a caller can cancel. Blocks the caller's thread, which should be
    /// the only one that works.
    ///
    /// - Throws: ``XFormerError/usage(_:)`` when the bundle has no such format; ``XFormerError/bundle(_:)`` when the
    ///   artifact can't be used; ``XFormerError/engine(_:)`` when the engine failed.
    public static func measure(
        _ bundle: ModelBundle, format: ArtifactFormat, machine: LatencyRun.Machine, tools: [String: String] = [:],
        settings: BenchmarkSettings, probe: some BenchmarkProbe = SilentProbe(),
        clock: some BenchmarkClock = SystemClock(), report: (BenchmarkProgress) throws -> Void = { _ in },
        open: () throws -> any Engine
    ) throws -> LatencyRun {
        let created = clock.now()
        let artifact = try bundle.artifact(format)
        try report(BenchmarkProgress(phase: .load, done: 0, total: 1))
        let rssStart = probe.residentBytes()
        let since = clock.nanoseconds()
        let opened = try open()
        let loadNs = clock.nanoseconds() - since
        let engine = opened.checked(by: bundle)
        defer { engine.close() }
        return try withoutActuallyEscaping(report) { report in
            var session = Session(
                bundle: bundle, engine: engine, settings: settings, probe: probe, clock: clock, report: report)
            let measured = try session.measure(artifact, loadNs: loadNs, rssStart: rssStart)
            return LatencyRun(created: created, machine: machine, tools: tools, measurements: [measured])
        }
    }

    /// Whether the last runs took as long as those before them, by their medians.
    static func isStable(_ samplesNs: [Int]) -> Bool {
        guard samplesNs.count >= 2 * window else { return false }
        let last = samplesNs.suffix(window)
        let before = samplesNs.suffix(2 * window).prefix(window)
        return abs(median(last) / median(before) - 1) <= stableWithin
    }

    /// Warm-up compares the median of so many runs with that of those before them.
    private static let window = 5
    private static let stableWithin = 0.02

    /// So many runs before the thermal state is asked for: that takes time too.
    private static let runsAProbe = 10

    /// The picture that preprocessing is timed on, about that of a phone's preview.
    private static let sourceSize = PixelSize(width: 640, height: 448)

    /// Runs that do not count; not stable where they were still changing when they were given up.
    private struct WarmUp {
        let samplesNs: [Int]
        let isStable: Bool
    }

    private struct Session<Probe: BenchmarkProbe, Clock: BenchmarkClock> {
        let bundle: ModelBundle
        let engine: CheckedEngine
        let settings: BenchmarkSettings
        let probe: Probe
        let clock: Clock
        let report: (BenchmarkProgress) throws -> Void
        private var thermalState: ThermalState?

        init(
            bundle: ModelBundle, engine: CheckedEngine, settings: BenchmarkSettings, probe: Probe, clock: Clock,
            report: @escaping (BenchmarkProgress) throws -> Void
        ) {
            self.bundle = bundle
            self.engine = engine
            self.settings = settings
            self.probe = probe
            self.clock = clock
            self.report = report
        }

        mutating func measure(_ artifact: Artifact, loadNs: Int, rssStart: Int?) throws -> LatencyRun.Measurement {
            let (engine, size, rule) = (engine, bundle.imageSize, bundle.resizeRule)
            let image = try drawnPicture(PixelSize(width: size.width, height: size.height))
            let source = try drawnPicture(sourceSize)
            noteThermalState()
            let rssLoaded = probe.residentBytes()
            let firstRunNs = try time { _ = try engine.run(image) }
            let warmUp = try warmUp(.warmUp) { _ = try engine.run(image) }
            let preemptedBefore = probe.preemptions()
            let inference = try samples(.inference, count: settings.runs) { _ = try engine.run(image) }
            let preemptedAfter = probe.preemptions()
            let rssPeak = probe.peakResidentBytes()
            let preprocess = try phase(.preprocess) {
                _ = try Preprocess.preprocess(source, target: size, rule: rule)
            }
            let fit = try Preprocess.preprocess(source, target: size, rule: rule).fit
            let outputs = try engine.run(image)
            let postprocess = try bundle.postprocess()
            let postprocessed = try phase(.postprocess) { _ = try postprocess(outputs, fit: fit) }
            noteThermalState()
            var measurement = LatencyRun.Measurement(
                model: .init(
                    task: bundle.task.rawValue, variant: bundle.manifest.model.variant, precision: bundle.precision,
                    imageSize: size),
                artifact: .init(
                    format: artifact.format.rawValue, sha256: artifact.sha256, sizeBytes: artifact.sizeBytes),
                engine: .init(
                    name: engine.report.engine, threads: engine.report.threads,
                    accelerator: engine.report.used ?? "\(engine.report.requested) (requested)"),
                phases: .init(
                    load: .init(samplesNs: [loadNs]),
                    firstRun: .init(samplesNs: [firstRunNs]),
                    preprocess: preprocess,
                    inference: .init(
                        samplesNs: inference, warmUpsNs: warmUp.samplesNs, processes: [inference.count]),
                    postprocess: postprocessed),
                memory: .init(rssStartBytes: rssStart, rssLoadedBytes: rssLoaded, rssPeakBytes: rssPeak),
                disturbances: .init(
                    preempted: preemptedBefore.flatMap { before in preemptedAfter.map { $0 - before } },
                    unstableWarmUps: warmUp.isStable ? 0 : 1,
                    thermalState: thermalState?.rawValue))
            let noise = measurement.noise()
            measurement.disturbances?.tooNoisy = noise
            return measurement
        }

        private mutating func phase(
            _ name: BenchmarkPhase, work: () throws -> Void
        ) throws -> LatencyRun.Measurement.Phase {
            let warmUp = try warmUp(name, work: work)
            let samples = try samples(name, count: settings.phaseRuns, work: work)
            return .init(samplesNs: samples, warmUpsNs: warmUp.samplesNs)
        }

        /// Runs until the time of a run no longer changes, or as long as the settings allow.
        private func warmUp(_ name: BenchmarkPhase, work: () throws -> Void) throws -> WarmUp {
            var samples: [Int] = []
            var total = 0
            while !isStable(samples) && samples.count < settings.maxWarmUps && total < settings.maxWarmUpNs {
                try report(BenchmarkProgress(phase: name, done: samples.count, total: settings.maxWarmUps))
                let sample = try time(work)
                samples.append(sample)
                total += sample
            }
            return WarmUp(samplesNs: samples, isStable: isStable(samples))
        }

        private mutating func samples(_ name: BenchmarkPhase, count: Int, work: () throws -> Void) throws -> [Int] {
            try (0..<count).map { done in
                try report(BenchmarkProgress(phase: name, done: done, total: count))
                if done % runsAProbe == 0 { noteThermalState() }
                return try time(work)
            }
        }

        private func time(_ work: () throws -> Void) rethrows -> Int {
            let since = clock.nanoseconds()
            try work()
            return clock.nanoseconds() - since
        }

        private mutating func noteThermalState() {
            guard let state = probe.thermalState() else { return }
            thermalState = max(state, thermalState ?? state)
        }
    }

    /// Waves and noise: how long a run takes does not depend on what a picture shows, but flat areas could flatter.
    private static func drawnPicture(_ size: PixelSize) throws -> RgbImage {
        var state: UInt32 = 1
        let bytes = (0..<3 * size.width * size.height).map { place in
            state = state &* 1_664_525 &+ 1_013_904_223
            let pixel = place / 3
            let wave = pixel % size.width * 5 + pixel / size.width * 3 + 40 * (place % 3)
            return UInt8(truncatingIfNeeded: wave + Int(state >> 27))
        }
        return try RgbImage(width: size.width, height: size.height, bytes: bytes)
    }
}
