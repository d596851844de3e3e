/// What a runtime must do to carry an editable model, and what it must tell about where it ran.

import Foundation

/// One program of a bundle, loaded. Not `Sendable`: whoever owns it calls it, one call at a time.
public protocol InferenceEngine: AnyObject {
    var program: Program { get }

    /// Where the operators of the program really run.
    var placement: Placement { get }

    /// Set every slot. Takes effect with the next call, all at once.
    func bind(_ slots: SlotValues) throws

    /// One sample's inputs, in the manifest's order → the first output, with what is bound.
    func predict(_ inputs: [ModelInput]) throws -> FloatTensor

    /// The same without slots, the base: what an edited call is measured against.
    func predictBase(_ inputs: [ModelInput]) throws -> FloatTensor

    /// One sample's inputs → features [1, F] and posterior [1, C].
    func observe(_ inputs: [ModelInput]) throws -> (features: FloatTensor, posterior: FloatTensor)
}

/// A program that cannot be loaded or run here.
public struct EngineError: CodedError, Equatable {
    public let message: String
    public let code = "engine.failed"

    public init(_ message: String) {
        self.message = message
    }
}

public enum Processor: String, Sendable, CaseIterable {
    case cpu
    case gpu
    case neuralEngine = "neural-engine"
}

/// How many operators of a program a processor runs.
public struct ProcessorShare: Sendable, Equatable {
    public let processor: Processor
    public let operators: Int
    /// Share of the program's estimated cost, 0 to 1, where the runtime estimates it.
    public let cost: Double?

    public init(processor: Processor, operators: Int, cost: Double?) {
        self.processor = processor
        self.operators = operators
        self.cost = cost
    }
}

/// Where the operators of a program run, as far as the runtime tells.
public struct Placement: Sendable, Equatable {
    public enum Source: Sendable, Equatable {
        /// The devices that Core ML's compute plan prefers; what it merely supports does not count.
        case computePlan
        /// The backends that ExecuTorch delegates to, one entry each.
        case delegates([String])
        /// The runtime does not say; the text says why.
        case unknown(String)
    }

    /// The most operators first; empty unless the source is a compute plan.
    public let processors: [ProcessorShare]
    public let source: Source

    public init(_ source: Source, processors: [ProcessorShare] = []) {
        self.source = source
        self.processors = processors.sorted { $0.operators > $1.operators }
    }

    /// For the measurement record: what ran, a delegate or a processor each.
    public var delegates: [String] {
        if case .delegates(let backends) = source { return backends }
        return processors.map(\.processor.rawValue)
    }

    /// The processor with most of the cost, or with most operators where no cost is told.
    public var mainProcessor: Processor? {
        processors.max { ($0.cost ?? 0, $0.operators) < ($1.cost ?? 0, $1.operators) }?.processor
    }

    /// One line for people.
    public var summary: String {
        switch source {
        case .computePlan:
            let all = processors.reduce(0) { $0 + $1.operators }
            return processors.map { "\($0.processor.rawValue) \($0.operators) of \(all)" }
                .joined(separator: ", ")
        case .delegates(let backends):
            return backends.isEmpty ? "no delegate" : Set(backends).sorted().joined(separator: ", ")
        case .unknown(let reason):
            return "unknown: \(reason)"
        }
    }
}

/// Loads one program for a processor of its choice.
public protocol EngineLoader: Sendable {
    func load(_ bundle: ModelBundle) async throws -> sending any InferenceEngine
}

/// One program in one configuration, to be loaded again and again.
public struct EngineFactory: Sendable {
    /// For people, such as `coreml fp16, cpuAndNeuralEngine`.
    public let label: String
    /// For the measurement record: runtime and, where it was asked for, processor.
    public let target: String
    public let precision: Precision
    /// Tells configurations apart whose first load is slow, because the system compiles for them.
    public let key: String

    private let loader: any EngineLoader

    public init(
        label: String, target: String, precision: Precision, key: String, loader: any EngineLoader
    ) {
        self.label = label
        self.target = target
        self.precision = precision
        self.key = key
        self.loader = loader
    }

    public func load(_ bundle: ModelBundle) async throws -> sending any InferenceEngine {
        try await loader.load(bundle)
    }
}
