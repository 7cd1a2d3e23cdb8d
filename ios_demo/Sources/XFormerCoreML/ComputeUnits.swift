#if canImport(CoreML)
import CoreML

/// The processors that Core ML may choose from for each operation. Which one it takes is its own choice;
/// ``ComputePlan`` tells what it prefers.
public enum ComputeUnits: String, Sendable, CaseIterable {
    /// Whatever the device has.
    case all

    /// The CPU alone: what the others are compared with.
    case cpuOnly = "cpu-only"

    /// Not the Neural Engine.
    case cpuAndGPU = "cpu-and-gpu"

    /// Not the GPU, which an app may need for what it draws.
    case cpuAndNeuralEngine = "cpu-and-neural-engine"

    var configuration: MLModelConfiguration {
        let made = MLModelConfiguration()
        made.computeUnits =
            switch self {
            case .all: .all
            case .cpuOnly: .cpuOnly
            case .cpuAndGPU: .cpuAndGPU
            case .cpuAndNeuralEngine: .cpuAndNeuralEngine
            }
        return made
    }
}
#endif
