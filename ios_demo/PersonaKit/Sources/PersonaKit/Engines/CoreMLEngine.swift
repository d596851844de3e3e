/// A bundle's Core ML package on this device: every slot's change is an optional input whose default
/// is zero, so leaving them all out is the base.
///
///     y = x·Wᵀ + b + x·dWᵀ + db
///
/// Where a package declares a slot as a state instead (iOS 18), the change is written there. A state
/// begins as zeros, so it too holds the change and never the weights.

#if canImport(CoreML)
    @preconcurrency import CoreML
    import Foundation

    public final class CoreMLEngine: InferenceEngine {
        public let program: Program
        public let placement: Placement

        private let inputs: [ModelPort]
        private let output: String
        private let forward: MLModel
        private let observing: MLModel?
        private let states: (any SlotStates)?
        /// Inputs of the slots, made once for each edit.
        private var changes: [String: MLFeatureValue] = [:]

        /// Compile the packages, unless `cache` has them, and load them for these units.
        public static func load(
            bundle: ModelBundle, program: Program, units: ComputeUnits, cache: URL
        ) async throws -> sending CoreMLEngine {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units.coreML
            do {
                let compiled = try await compile(program.path, of: bundle, into: cache)
                let forward = try await MLModel.load(
                    contentsOf: compiled, configuration: configuration
                )
                var observing: MLModel?
                if let path = program.observePath {
                    observing = try await MLModel.load(
                        contentsOf: try await compile(path, of: bundle, into: cache),
                        configuration: configuration
                    )
                }
                return try CoreMLEngine(
                    bundle: bundle, program: program, forward: forward, observing: observing,
                    placement: await Placement.planned(compiled, configuration)
                )
            } catch {
                throw EngineError(
                    "Core ML cannot load \(program.path) for \(units.rawValue): "
                        + error.localizedDescription
                )
            }
        }

        /// Compiled packages are kept by what the bundle is called: another bundle, another folder.
        private static func compile(
            _ path: String, of bundle: ModelBundle, into cache: URL
        ) async throws -> URL {
            let name = path.replacing("/", with: "-").replacing(".mlpackage", with: ".mlmodelc")
            let place = cache.appending(path: bundle.digest).appending(path: name)
            if FileManager.default.fileExists(atPath: place.path) { return place }
            let made = try await MLModel.compileModel(at: bundle.folder.appending(path: path))
            try FileManager.default.createDirectory(
                at: place.deletingLastPathComponent(), withIntermediateDirectories: true
            )
            try FileManager.default.moveItem(at: made, to: place)
            return place
        }

        private init(
            bundle: ModelBundle, program: Program, forward: MLModel, observing: MLModel?,
            placement: Placement
        ) throws {
            self.program = program
            self.placement = placement
            self.forward = forward
            self.observing = observing
            inputs = bundle.manifest.inputs
            output = bundle.manifest.outputs[0].name
            let named = forward.modelDescription.inputDescriptionsByName
            let fed = try program.feeds.map { feed in
                guard let input = feed.input else {
                    throw EngineError("Core ML wants the name of \(feed.tensor)'s input")
                }
                return input
            }
            let missing = fed.filter { named[$0] == nil }
            states = missing.isEmpty ? nil : try slotStates(of: forward, names: missing)
        }

        public func bind(_ slots: SlotValues) throws {
            var changes: [String: MLFeatureValue] = [:]
            for feed in program.feeds {
                let values = feed.carries == .change ? slots.change : slots.effective
                let tensor = values[feed.tensor]!.reshaped(feed.shape)
                if let states, states.names.contains(feed.input!) {
                    try states.write(tensor.values, to: feed.input!)
                } else {
                    changes[feed.input!] = MLFeatureValue(
                        multiArray: try forward.array(.float32(tensor), named: feed.input!)
                    )
                }
            }
            self.changes = changes
        }

        public func predict(_ inputs: [ModelInput]) throws -> FloatTensor {
            let features = try features(inputs, of: forward).merging(changes) { own, _ in own }
            let given = try MLDictionaryFeatureProvider(dictionary: features)
            let outputs = try states?.predict(forward, given) ?? forward.prediction(from: given)
            return try outputs.tensor(output)
        }

        public func predictBase(_ inputs: [ModelInput]) throws -> FloatTensor {
            let given = try MLDictionaryFeatureProvider(dictionary: features(inputs, of: forward))
            let outputs =
                try states?.predictBase(forward, given) ?? forward.prediction(from: given)
            return try outputs.tensor(output)
        }

        public func observe(
            _ inputs: [ModelInput]
        ) throws -> (features: FloatTensor, posterior: FloatTensor) {
            guard let observing else {
                throw EngineError("this bundle observes item ids; it has no observe program")
            }
            let given = try MLDictionaryFeatureProvider(
                dictionary: features(inputs, of: observing)
            )
            let outputs = try observing.prediction(from: given)
            return (try outputs.tensor("features"), try outputs.tensor("posterior"))
        }

        private func features(
            _ values: [ModelInput], of model: MLModel
        ) throws -> [String: MLFeatureValue] {
            guard values.count == inputs.count else {
                throw EngineError("expected \(inputs.count) inputs, got \(values.count)")
            }
            var features: [String: MLFeatureValue] = [:]
            for (port, value) in zip(inputs, values) {
                features[port.name] = MLFeatureValue(
                    multiArray: try model.array(value, named: port.name)
                )
            }
            return features
        }
    }

    extension ComputeUnits {
        fileprivate var coreML: MLComputeUnits {
            switch self {
            case .cpuOnly: .cpuOnly
            case .cpuAndGPU: .cpuAndGPU
            case .cpuAndNeuralEngine: .cpuAndNeuralEngine
            case .all: .all
            }
        }
    }

    extension MLModel {
        /// A multi-array of the type that the package declares for this input.
        fileprivate func array(_ value: ModelInput, named name: String) throws -> MLMultiArray {
            guard
                let constraint = modelDescription.inputDescriptionsByName[name]?
                    .multiArrayConstraint
            else {
                throw EngineError("the package has no input '\(name)'; export the bundle again")
            }
            let array = try MLMultiArray(
                shape: value.shape.map { NSNumber(value: $0) }, dataType: constraint.dataType
            )
            switch value {
            case .float32(let tensor): try array.write(tensor.values)
            case .int64(let tensor): try array.write(tensor.values)
            }
            return array
        }
    }

    extension MLMultiArray {
        /// Values row by row, narrowed to the array's type.
        fileprivate func write(_ values: [Float]) throws {
            switch dataType {
            case .float32: store(values)
            case .float16: store(values.map(Half.narrowed))
            case .double: store(values.map(Double.init))
            default: throw EngineError("the package wants no floats where the manifest has them")
            }
        }

        /// Core ML has no 64-bit integers.
        fileprivate func write(_ values: [Int64]) throws {
            guard dataType == .int32 else {
                throw EngineError("the package wants no integers where the manifest has them")
            }
            store(
                try values.map { value in
                    guard let narrow = Int32(exactly: value) else {
                        throw EngineError("\(value) does not fit 32 bits")
                    }
                    return narrow
                })
        }

        private func store<Element: BitwiseCopyable>(_ values: [Element]) {
            let sizes = shape.map(\.intValue)
            withUnsafeMutableBytes { bytes, strides in
                let offsets = StridedLayout.offsets(shape: sizes, strides: strides)
                for (offset, value) in zip(offsets, values) {
                    bytes.storeBytes(
                        of: value, toByteOffset: offset * MemoryLayout<Element>.stride,
                        as: Element.self
                    )
                }
            }
        }

        fileprivate func floats() throws -> FloatTensor {
            let values: [Float]
            switch dataType {
            case .float32: values = elements(Float.self)
            case .float16: values = elements(UInt16.self).map(Half.widened)
            case .double: values = elements(Double.self).map(Float.init)
            default: throw EngineError("the package gives no floats; export the bundle again")
            }
            return FloatTensor(shape: shape.map(\.intValue), values: values)
        }

        private func elements<Element: BitwiseCopyable>(_: Element.Type) -> [Element] {
            let offsets = StridedLayout.offsets(
                shape: shape.map(\.intValue), strides: strides.map(\.intValue)
            )
            return withUnsafeBytes { bytes in
                offsets.map {
                    bytes.loadUnaligned(
                        fromByteOffset: $0 * MemoryLayout<Element>.stride, as: Element.self
                    )
                }
            }
        }
    }

    extension MLFeatureProvider {
        fileprivate func tensor(_ name: String) throws -> FloatTensor {
            guard let array = featureValue(for: name)?.multiArrayValue else {
                throw EngineError("the package has no output '\(name)'; export the bundle again")
            }
            return try array.floats()
        }
    }

    // MARK: States

    /// Slots that a package keeps as states, hidden from systems before iOS 18.
    private protocol SlotStates {
        var names: Set<String> { get }
        func write(_ values: [Float], to name: String) throws
        func predict(_ model: MLModel, _ inputs: any MLFeatureProvider) throws
            -> any MLFeatureProvider
        func predictBase(
            _ model: MLModel, _ inputs: any MLFeatureProvider
        ) throws -> any MLFeatureProvider
    }

    private func slotStates(of model: MLModel, names: [String]) throws -> any SlotStates {
        if #available(iOS 18, macOS 15, *) {
            let unknown = names.filter { model.modelDescription.stateDescriptionsByName[$0] == nil }
            guard unknown.isEmpty else {
                throw EngineError(
                    "the package has neither inputs nor states \(unknown); export the bundle again"
                )
            }
            return MLSlotStates(model: model, names: Set(names))
        }
        throw EngineError("slots \(names) are states, which need iOS 18; take another precision")
    }

    @available(iOS 18, macOS 15, *)
    private struct MLSlotStates: SlotStates {
        let names: Set<String>
        private let edited: MLState
        private let base: MLState

        init(model: MLModel, names: Set<String>) {
            self.names = names
            edited = model.makeState()
            base = model.makeState()
        }

        /// States are binary16; rows may be padded.
        func write(_ values: [Float], to name: String) throws {
            try edited.withMultiArray(for: name) { array in
                try array.write(values)
            }
        }

        func predict(
            _ model: MLModel, _ inputs: any MLFeatureProvider
        ) throws -> any MLFeatureProvider {
            try model.prediction(from: inputs, using: edited)
        }

        func predictBase(
            _ model: MLModel, _ inputs: any MLFeatureProvider
        ) throws -> any MLFeatureProvider {
            try model.prediction(from: inputs, using: base)
        }
    }

    // MARK: Placement

    extension Placement {
        /// What Core ML's compute plan prefers, so that a model placed on the CPU is never reported
        /// as the Neural Engine's.
        fileprivate static func planned(
            _ compiled: URL, _ configuration: MLModelConfiguration
        ) async -> Placement {
            guard #available(iOS 17.4, macOS 14.4, *) else {
                return Placement(.unknown("compute plans need iOS 17.4"))
            }
            guard
                let plan = try? await MLComputePlan.load(
                    contentsOf: compiled, configuration: configuration
                ), case .program(let structure) = plan.modelStructure,
                let main = structure.functions["main"]
            else { return Placement(.unknown("Core ML gives no compute plan for this program")) }
            var operators: [Processor: Int] = [:]
            var costs: [Processor: Double] = [:]
            func count(_ block: MLModelStructure.Program.Block) {
                for operation in block.operations {
                    operation.blocks.forEach(count)
                    // Constants run nowhere.
                    guard let preferred = plan.deviceUsage(for: operation)?.preferred,
                        let processor = Processor(preferred)
                    else { continue }
                    operators[processor, default: 0] += 1
                    costs[processor, default: 0] += plan.estimatedCost(of: operation)?.weight ?? 0
                }
            }
            count(main.block)
            return Placement(
                .computePlan,
                processors: operators.map {
                    ProcessorShare(processor: $0, operators: $1, cost: costs[$0])
                }
            )
        }
    }

    extension Processor {
        @available(iOS 17, macOS 14, *)
        fileprivate init?(_ device: MLComputeDevice) {
            switch device {
            case .cpu: self = .cpu
            case .gpu: self = .gpu
            case .neuralEngine: self = .neuralEngine
            @unknown default: return nil
            }
        }
    }

    private struct CoreMLLoader: EngineLoader {
        let program: Program
        let units: ComputeUnits
        let cache: URL

        func load(_ bundle: ModelBundle) async throws -> sending any InferenceEngine {
            try await CoreMLEngine.load(
                bundle: bundle, program: program, units: units, cache: cache)
        }
    }

    extension EngineFactory {
        /// `cache`: a folder of the app's for compiled packages.
        public static func coreML(
            _ program: Program, units: ComputeUnits, cache: URL
        ) -> EngineFactory {
            let label = "\(program.target) \(program.precision.rawValue), \(units.rawValue)"
            return EngineFactory(
                label: label, target: "\(program.target)/\(units.rawValue)",
                precision: program.precision, key: label,
                loader: CoreMLLoader(program: program, units: units, cache: cache)
            )
        }
    }
#endif
