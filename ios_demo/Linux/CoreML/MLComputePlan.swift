import Foundation

public final class MLCPUComputeDevice: NSObject, @unchecked Sendable {}

public final class MLGPUComputeDevice: NSObject, @unchecked Sendable {}

public final class MLNeuralEngineComputeDevice: NSObject, @unchecked Sendable {}

@available(macOS 14.0, iOS 17.0, *)
public enum MLComputeDevice: Hashable, Sendable {
    case cpu(MLCPUComputeDevice)
    case gpu(MLGPUComputeDevice)
    case neuralEngine(MLNeuralEngineComputeDevice)
}

@available(macOS 14.4, iOS 17.4, *)
public enum MLModelStructure: Sendable {
    public struct Program: Sendable {
        public struct Function: Sendable {
            public let block: Block
        }

        public struct Block: Sendable {
            public let operations: [Operation]
        }

        public struct Operation: Sendable {
            public let operatorName: String
            public let blocks: [Block]
            let device: String?
            let cost: Double?
        }

        public let functions: [String: Function]
    }

    public struct NeuralNetwork: Sendable {}

    public struct Pipeline: Sendable {}

    case neuralNetwork(NeuralNetwork)
    case program(Program)
    case pipeline(Pipeline)
    case unsupported
}

@available(macOS 14.4, iOS 17.4, *)
public final class MLComputePlan {
    public struct DeviceUsage: Sendable {
        public let supported: [MLComputeDevice]
        public let preferred: MLComputeDevice
    }

    public struct Cost: Sendable {
        public let weight: Double
    }

    public let modelStructure: MLModelStructure

    init(_ model: DoubleModel) {
        func block(_ operations: [DoubleModel.Operation]) -> MLModelStructure.Program.Block {
            MLModelStructure.Program.Block(
                operations: operations.map {
                    MLModelStructure.Program.Operation(
                        operatorName: $0.name, blocks: $0.inner.isEmpty ? [] : [block($0.inner)], device: $0.device,
                        cost: $0.cost)
                })
        }
        modelStructure =
            model.isProgram
            ? .program(.init(functions: ["main": .init(block: block(model.operations))])) : .neuralNetwork(.init())
    }

    public static func load(contentsOf url: URL, configuration: MLModelConfiguration) async throws -> MLComputePlan {
        CoreMLDouble.note(.plan(configuration.computeUnits))
        if let failure = CoreMLDouble.planFailure { throw failure }
        return MLComputePlan(try DoubleModel(compiled: url))
    }

    public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? {
        let device: MLComputeDevice
        switch operation.device {
        case "cpu": device = .cpu(MLCPUComputeDevice())
        case "gpu": device = .gpu(MLGPUComputeDevice())
        case "neuralEngine": device = .neuralEngine(MLNeuralEngineComputeDevice())
        default: return nil
        }
        return DeviceUsage(supported: [device], preferred: device)
    }

    public func estimatedCost(of operation: MLModelStructure.Program.Operation) -> Cost? {
        operation.cost.map { Cost(weight: $0) }
    }
}
