// The part of Apple's module `CoreML` that PersonaKit uses, declared as Apple's documentation gives
// it, so that a Linux compiler can check the types. Nothing here runs.

import Foundation

public enum MLComputeUnits: Int, Sendable {
    case cpuOnly = 0
    case cpuAndGPU = 1
    case all = 2
    case cpuAndNeuralEngine = 3
}

open class MLModelConfiguration {
    public init() {}
    open var computeUnits: MLComputeUnits = .all
}

public enum MLMultiArrayDataType: Int, Sendable {
    case double = 65600
    case float32 = 65568
    case float16 = 65552
    case int32 = 131104
}

open class MLMultiArray {
    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws { fatalError() }
    open var dataType: MLMultiArrayDataType { fatalError() }
    open var shape: [NSNumber] { fatalError() }
    open var strides: [NSNumber] { fatalError() }

    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        fatalError()
    }

    public func withUnsafeMutableBytes<R>(
        _ body: (UnsafeMutableRawBufferPointer, [Int]) throws -> R
    ) rethrows -> R {
        fatalError()
    }
}

open class MLFeatureValue {
    public convenience init(multiArray value: MLMultiArray) { fatalError() }
    open var multiArrayValue: MLMultiArray? { fatalError() }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: MLFeatureProvider {
    public init(dictionary: [String: Any]) throws { fatalError() }
    open var featureNames: Set<String> { fatalError() }
    open func featureValue(for featureName: String) -> MLFeatureValue? { fatalError() }
}

open class MLMultiArrayConstraint {
    open var dataType: MLMultiArrayDataType { fatalError() }
}

open class MLFeatureDescription {
    open var multiArrayConstraint: MLMultiArrayConstraint? { fatalError() }
}

open class MLModelDescription {
    open var inputDescriptionsByName: [String: MLFeatureDescription] { fatalError() }
    open var stateDescriptionsByName: [String: MLFeatureDescription] { fatalError() }
}

open class MLState {
    public func withMultiArray<R>(
        for stateName: String, _ body: (MLMultiArray) throws -> R
    ) rethrows -> R {
        fatalError()
    }
}

open class MLModel {
    open var modelDescription: MLModelDescription { fatalError() }

    open class func compileModel(at modelURL: URL) async throws -> URL { fatalError() }

    open class func load(
        contentsOf url: URL, configuration: MLModelConfiguration
    ) async throws -> MLModel {
        fatalError()
    }

    open func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {
        fatalError()
    }

    open func prediction(
        from input: any MLFeatureProvider, using state: MLState
    ) throws -> any MLFeatureProvider {
        fatalError()
    }

    open func makeState() -> MLState { fatalError() }
}

public class MLCPUComputeDevice {}
public class MLGPUComputeDevice {}
public class MLNeuralEngineComputeDevice {}

public enum MLComputeDevice {
    case cpu(MLCPUComputeDevice)
    case gpu(MLGPUComputeDevice)
    case neuralEngine(MLNeuralEngineComputeDevice)
}

public enum MLModelStructure {
    case neuralNetwork
    case program(Program)
    case pipeline
    case unsupported

    public struct Program {
        public let functions: [String: Function]

        public struct Function {
            public let block: Block
        }

        public struct Block {
            public let operations: [Operation]
        }

        public struct Operation {
            public let operatorName: String
            public let blocks: [Block]
        }
    }
}

public class MLComputePlan {
    public struct DeviceUsage {
        public let supported: [MLComputeDevice]
        public let preferred: MLComputeDevice
    }

    public struct Cost {
        public let weight: Double
    }

    public static func load(
        contentsOf url: URL, configuration: MLModelConfiguration
    ) async throws -> MLComputePlan {
        fatalError()
    }

    public var modelStructure: MLModelStructure { fatalError() }

    public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? {
        fatalError()
    }

    public func estimatedCost(of operation: MLModelStructure.Program.Operation) -> Cost? {
        fatalError()
    }
}
