#if os(Linux)
import CoreML
import XCTest
import XFormerCore

@testable import XFormerCoreML

final class ComputePlanTests: XCTestCase {
    private func plan(
        _ units: ComputeUnits = .all, _ edit: @escaping (inout DoubleModel) -> Void
    ) async throws -> ComputePlan? {
        let files = try ModelFiles.make(.classify, for: self, edit: edit)
        return try await XFormer(files.bundle, options: files.options).computePlan()
    }

    func testSharesByProcessor() async throws {
        let found = try await plan { model in
            model.operations = [
                .init(name: "const"),
                .init(name: "ios16.conv", device: "neuralEngine", cost: 0.6),
                .init(
                    name: "cond", device: "cpu", cost: 0.1,
                    inner: [.init(name: "ios16.add", device: "gpu", cost: 0.1), .init(name: "const")]),
                .init(name: "ios16.mul", device: "neuralEngine"),
            ]
        }
        let plan = try XCTUnwrap(found)
        XCTAssertEqual(plan.operations.map(\.name), ["ios16.conv", "cond", "ios16.add", "ios16.mul"])
        XCTAssertEqual(plan.operations.map(\.device), [.neuralEngine, .cpu, .gpu, .neuralEngine])
        XCTAssertEqual(plan.shares.map(\.device), [.neuralEngine, .gpu, .cpu])
        XCTAssertEqual(plan.shares.map(\.operations), [2, 1, 1])
        XCTAssertEqual(
            plan.summary,
            "Neural Engine: 2 operations, 75.0 % of the cost; GPU: 1 operation, 12.5 % of the cost; "
                + "CPU: 1 operation, 12.5 % of the cost")
    }

    func testWithoutEstimates() async throws {
        let found = try await plan { $0.operations = [.init(name: "conv", device: "cpu")] }
        XCTAssertEqual(found?.summary, "CPU: 1 operation")
        XCTAssertEqual(found?.shares, [ComputePlan.Share(device: .cpu, operations: 1, cost: nil)])
    }

    func testWithoutOperations() async throws {
        let found = try await plan { _ in }
        XCTAssertEqual(found?.shares, [])
        XCTAssertEqual(found?.summary, "Core ML tells of no operation where it would run")
    }

    func testTheUnitsAreThoseOfTheModel() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        var options = files.options
        options.computeUnits = .cpuAndNeuralEngine
        _ = try await XFormer(files.bundle, options: options).computePlan()
        XCTAssertEqual(CoreMLDouble.calls.last, .plan(.cpuAndNeuralEngine))
    }

    func testAModelThatIsNoProgramIsAnErrorOfTheEngine() async throws {
        let message = await refusal(XFormerError.engine) { try await self.plan { $0.isProgram = false } }
        XCTAssertTrue(message.contains("no ML program"), message)
    }

    func testWhatCoreMLThrowsIsAnErrorOfTheEngine() async throws {
        let files = try ModelFiles.make(.classify, for: self)
        let model = try await XFormer(files.bundle, options: files.options)
        CoreMLDouble.planFailure = MLModelError(.generic, "No\nplan.")
        let message = await refusal(XFormerError.engine) { try await model.computePlan() }
        XCTAssertEqual(message, "Core ML makes no compute plan: No plan.")
    }
}
#endif
