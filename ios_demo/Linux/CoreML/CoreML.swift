// A test double of Apple's Core ML. Names and types are those of the iOS 18 SDK. What a model is, and what it returns, is
// said by a file in its package (see DoubleModel) and by the tests (see CoreMLDouble).

@_exported import CoreVideo
import Foundation

public enum MLComputeUnits: Int, Sendable {
    case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine
}

public final class MLModelConfiguration: NSObject {
    public var computeUnits = MLComputeUnits.all
}

public enum MLFeatureType: Int, Sendable {
    case invalid = 0
    case int64, double, string, image, multiArray, dictionary, sequence, state
}

public final class MLImageConstraint: NSObject {
    public let pixelsWide: Int
    public let pixelsHigh: Int

    init(width: Int, height: Int) {
        pixelsWide = width
        pixelsHigh = height
    }
}

public final class MLFeatureDescription: NSObject {
    public let name: String
    public let type: MLFeatureType
    public let imageConstraint: MLImageConstraint?

    init(name: String, type: MLFeatureType, imageConstraint: MLImageConstraint? = nil) {
        self.name = name
        self.type = type
        self.imageConstraint = imageConstraint
    }
}

public final class MLModelDescription: NSObject {
    public let inputDescriptionsByName: [String: MLFeatureDescription]
    public let outputDescriptionsByName: [String: MLFeatureDescription]

    init(_ model: DoubleModel) {
        let image = MLImageConstraint(width: model.width, height: model.height)
        inputDescriptionsByName = model.inputs.reduce(into: [:]) { found, name in
            found[name] = MLFeatureDescription(
                name: name, type: model.takesImage ? .image : .multiArray,
                imageConstraint: model.takesImage ? image : nil)
        }
        var outputs = model.outputs.reduce(into: [:]) { found, output in
            found[output.name] = MLFeatureDescription(name: output.name, type: .multiArray)
        }
        // A classifier's own, beside the arrays.
        outputs["classLabel"] = MLFeatureDescription(name: "classLabel", type: .string)
        outputDescriptionsByName = outputs
    }
}

public final class MLFeatureValue: NSObject {
    public let type: MLFeatureType
    public let multiArrayValue: MLMultiArray?
    public let imageBufferValue: CVPixelBuffer?
    public let stringValue: String

    public init(multiArray value: MLMultiArray) {
        (type, multiArrayValue, imageBufferValue, stringValue) = (.multiArray, value, nil, "")
    }

    public init(pixelBuffer value: CVPixelBuffer) {
        (type, multiArrayValue, imageBufferValue, stringValue) = (.image, nil, value, "")
    }

    public init(string value: String) {
        (type, multiArrayValue, imageBufferValue, stringValue) = (.string, nil, nil, value)
    }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

public final class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    private let features: [String: MLFeatureValue]

    public init(dictionary: [String: Any]) throws {
        features = try dictionary.mapValues { value in
            guard let feature = value as? MLFeatureValue else { throw MLModelError(.featureType, "no feature value") }
            return feature
        }
    }

    public var featureNames: Set<String> { Set(features.keys) }

    public func featureValue(for featureName: String) -> MLFeatureValue? { features[featureName] }
}

/// An error as Core ML makes it: more than one line, and long.
public struct MLModelError: LocalizedError {
    public enum Code: Int, Sendable {
        case generic = 0
        case featureType = 1
        case io = 3
    }

    public let code: Code
    public let errorDescription: String?

    public init(_ code: Code, _ text: String) {
        self.code = code
        errorDescription = text
    }
}

public final class MLModel: NSObject {
    public let modelDescription: MLModelDescription
    public let configuration: MLModelConfiguration
    private let model: DoubleModel

    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
        CoreMLDouble.note(.load(configuration.computeUnits))
        model = try DoubleModel(compiled: url)
        modelDescription = MLModelDescription(model)
        self.configuration = configuration
        super.init()
    }

    public static func compileModel(at url: URL) async throws -> URL {
        CoreMLDouble.note(.compile)
        return try DoubleModel.compile(url)
    }

    public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {
        CoreMLDouble.note(.predict)
        guard let name = model.inputs.first, let picture = input.featureValue(for: name)?.imageBufferValue else {
            throw MLModelError(.featureType, "a feature of the input is missing")
        }
        let outputs = try CoreMLDouble.predict?(picture) ?? model.outputs(for: picture)
        return try MLDictionaryFeatureProvider(dictionary: outputs)
    }
}

#if !canImport(ObjectiveC)
/// Apple's is of the module ObjectiveC, which every framework exports.
public func autoreleasepool<Result>(invoking body: () throws -> Result) rethrows -> Result { try body() }
#endif
