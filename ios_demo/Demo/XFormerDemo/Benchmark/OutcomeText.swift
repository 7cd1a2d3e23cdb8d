import XFormerCore

/// What became of a target, in the words of the benchmark's screen.
enum OutcomeText {
    /// What was measured: format, engine, compute units.
    static func title(of target: BenchmarkTarget) -> String {
        Words.benchmarkTarget(
            format: ArtifactFormat.coreml.rawValue, units: EngineText.name(of: target.units))
    }

    /// PASS, FAIL or not known.
    static func verdict(of outcome: BenchmarkOutcome) -> String {
        switch outcome.parity?.passed {
        case .some(true): Words.parityPass
        case .some(false): Words.parityFail
        case nil: Words.parityUnknown
        }
    }

    /// The engine that was used, and the figures behind the verdict, one a line.
    static func details(of outcome: BenchmarkOutcome) -> [String] {
        var lines: [String] = []
        if let engine = outcome.engine { lines.append(EngineText.describe(engine)) }
        if let parity = outcome.parity {
            lines.append(Words.parityImages(parity.images))
            lines += parity.outputs.map(line)
            let share = Figures.exactPercent(parity.agreement.share)
            lines.append(Words.parityAgreement(parity.agreement.name, share: share))
            lines.append(Words.parityTolerance(bounds(of: parity.tolerance)))
            lines += parity.misses
        }
        if let error = outcome.error { lines.append(Words.benchmarkRefused(error)) }
        return lines
    }

    /// The times: a line of headings, then one for each phase; the first cell of a line says what it is. Empty where
    /// nothing was measured.
    static func table(of outcome: BenchmarkOutcome) -> [[String]] {
        guard let measurement = outcome.measurement else { return [] }
        let headings = [
            Words.tablePhase, Words.tableSamples, Words.tableMin, Words.tableMedian, Words.tableP90, Words.tableP99,
            Words.tableSpread,
        ]
        return [headings]
            + measurement.statistics().map { phase, of in
                [name(of: phase), of.count.description]
                    + [Double(of.minNs), of.p50Ns, of.p90Ns, of.p99Ns].map(Figures.milliseconds)
                    + [Figures.percent(of.spread)]
            }
    }

    /// A row of the table for VoiceOver, each cell with its heading: "inference, samples 200, min 3.1 ms, ...".
    static func sentence(for row: [String], under headings: [String]) -> String {
        let cells = zip(headings, row).dropFirst().map { Words.resultShare($0, share: $1) }
        return (row.prefix(1) + cells).joined(separator: Words.separator)
    }

    /// Why the times can't be relied on, or that they can; and how hot the device was. Empty where nothing was
    /// measured.
    static func notes(of outcome: BenchmarkOutcome) -> [String] {
        guard let disturbances = outcome.measurement?.disturbances else { return [] }
        let noise = (disturbances.tooNoisy ?? []).map(Words.noise)
        let thermal = disturbances.thermalState.map(Words.thermal) ?? Words.thermalUnknown
        return (noise.isEmpty ? [Words.noiseNone] : noise) + [thermal]
    }

    /// What a benchmark does now.
    static func describe(_ step: BenchmarkStep) -> String {
        switch step {
        case .comparing(let target, let done, let total):
            Words.benchmarkComparing(
                title(of: target), picture: min(done + 1, total).description, of: total.description)
        case .timing(let target, _): Words.benchmarkTiming(title(of: target))
        }
    }

    private static func line(for output: OutputComparison) -> String {
        let snr = output.snrDb == .infinity ? Words.snrEqual : Figures.decibels(output.snrDb)
        return Words.parityOutput(output.name, difference: Figures.scientific(output.relativeMax), snr: snr)
    }

    private static func bounds(of tolerance: Tolerance) -> String {
        var bounds: [String] = []
        if tolerance.relativeMax.isFinite {
            bounds.append(Words.toleranceDifference(Figures.scientific(tolerance.relativeMax)))
        }
        if tolerance.snrDb.isFinite { bounds.append(Words.toleranceSnr(Figures.decibels(tolerance.snrDb, places: 0))) }
        if tolerance.agreement > 0 {
            bounds.append(Words.toleranceAgreement(Figures.exactPercent(tolerance.agreement)))
        }
        return bounds.joined(separator: Words.separator)
    }

    private static func name(of phase: BenchmarkPhase) -> String {
        switch phase {
        case .load: Words.phaseLoad
        case .firstRun: Words.phaseFirstRun
        case .warmUp: phase.rawValue
        case .preprocess: Words.phasePreprocess
        case .inference: Words.phaseInference
        case .postprocess: Words.phasePostprocess
        }
    }
}
