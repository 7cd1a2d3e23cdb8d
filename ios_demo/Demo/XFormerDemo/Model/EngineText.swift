import XFormerCore
import XFormerCoreML

/// Compute units and engines in words.
enum EngineText {
    /// What the screens call compute units.
    static func name(of units: ComputeUnits) -> String {
        switch units {
        case .all: Words.unitsAll
        case .cpuOnly: Words.unitsCpu
        case .cpuAndGPU: Words.unitsGpu
        case .cpuAndNeuralEngine: Words.unitsNeuralEngine
        }
    }

    /// The engine that is really used: its name and version, format and compute units on one line; its notes on lines
    /// of their own.
    static func describe(_ report: EngineReport) -> String {
        let name = report.engine == "coreml" ? "Core ML" : report.engine
        let engine = report.version.isEmpty ? name : "\(name) \(report.version)"
        let requested = ComputeUnits(rawValue: report.requested).map(Self.name) ?? report.requested
        let units: String
        if let used = report.used {
            units = used == report.requested ? requested : Words.unitsUsed(used, requested: requested)
        } else {
            units = Words.unitsUnknown(requested)
        }
        let line = Words.engineUsed(engine, format: report.format.rawValue, units: units)
        return ([line] + report.notes).joined(separator: "\n")
    }
}
