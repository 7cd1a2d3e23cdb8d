#if canImport(CoreML)
import CoreML
import Foundation
import XFormerCore

/// On what processor Core ML expects to run each operation of a model, and what share of the work that is.
///
/// It is an expectation, made before anything runs: what really ran where, only Xcode's Instruments can tell.
public struct ComputePlan: Sendable, Equatable {
    /// A kind of processor.
    public enum Device: String, Sendable, CaseIterable {
        /// The Neural Engine.
        case neuralEngine = "Neural Engine"

        /// The GPU.
        case gpu = "GPU"

        /// The CPU.
        case cpu = "CPU"

        /// One that this library does not know.
        case other = "another processor"
    }

    /// One operation that is computed; constants are left out.
    public struct Operation: Sendable, Equatable {
        /// As the program names it, such as "ios16.conv".
        public let name: String

        /// What Core ML prefers.
        public let device: Device

        /// Its share of the whole model's work, 0..1; nil where Core ML has no estimate.
        public let cost: Double?
    }

    /// What is expected of one processor.
    public struct Share: Sendable, Equatable {
        /// The processor.
        public let device: Device

        /// How many operations it gets.
        public let operations: Int

        /// Their share of the work that is estimated, 0..1; nil where nothing is.
        public let cost: Double?
    }

    /// In the program's order.
    public let operations: [Operation]

    /// The processors that get operations, in the order of ``Device``.
    public var shares: [Share] {
        let total = operations.compactMap(\.cost).reduce(0, +)
        return Device.allCases.compactMap { device in
            let own = operations.filter { $0.device == device }
            guard !own.isEmpty else { return nil }
            let cost = total > 0 ? own.compactMap(\.cost).reduce(0, +) / total : nil
            return Share(device: device, operations: own.count, cost: cost)
        }
    }

    /// In one line for people: "Neural Engine: 120 operations, 97.5 % of the cost; CPU: 4 operations, 2.5 % of the cost".
    public var summary: String {
        guard !operations.isEmpty else { return "Core ML tells of no operation where it would run" }
        return shares.map { share in
            let cost = share.cost.map { ", " + String(format: "%.1f", 100 * $0) + " % of the cost" } ?? ""
            return "\(share.device.rawValue): \(share.operations) operation\(share.operations == 1 ? "" : "s")\(cost)"
        }.joined(separator: "; ")
    }

    /// The plan of a compiled model; nil before iOS 17.4 and macOS 14.4, which do not tell.
    ///
    /// - Throws: ``XFormerCore/XFormerError/engine(_:)`` when Core ML makes none.
    public static func load(_ compiled: CompiledModel, computeUnits: ComputeUnits) async throws -> ComputePlan? {
        guard #available(iOS 17.4, macOS 14.4, *) else { return nil }
        let plan: MLComputePlan
        do {
            plan = try await MLComputePlan.load(
                contentsOf: compiled.url, configuration: computeUnits.configuration)
        } catch let error where !(error is CancellationError) {
            throw XFormerError.engine("Core ML makes no compute plan: \(oneLine(error))")
        }
        guard case .program(let program) = plan.modelStructure else {
            throw XFormerError.engine("Core ML makes no compute plan: the model is no ML program; export it again")
        }
        let main = program.functions["main"]
        return ComputePlan(operations: main.map { operations(of: $0.block, in: plan) } ?? [])
    }

    /// Those of a block and of the blocks inside its operations.
    @available(iOS 17.4, macOS 14.4, *)
    private static func operations(
        of block: MLModelStructure.Program.Block, in plan: MLComputePlan
    ) -> [Operation] {
        block.operations.flatMap { operation in
            let inner = operation.blocks.flatMap { operations(of: $0, in: plan) }
            guard let usage = plan.deviceUsage(for: operation) else { return inner }
            let cost = plan.estimatedCost(of: operation)?.weight
            return [Operation(name: operation.operatorName, device: Device(usage.preferred), cost: cost)] + inner
        }
    }
}

@available(iOS 17, macOS 14, *)
extension ComputePlan.Device {
    init(_ device: MLComputeDevice) {
        switch device {
        case .neuralEngine: self = .neuralEngine
        case .gpu: self = .gpu
        case .cpu: self = .cpu
        @unknown default: self = .other
        }
    }
}
#endif
