/// A bundle's ExecuTorch program on this device: slots bound once, not on each call, so that an
/// edited forward costs what a baked one does.
///
/// Where the program is in two, slots of the head are patched into a file of its own, and the head
/// is loaded anew.

#if canImport(ExecuTorch)
    import ExecuTorch
    import Foundation
    import PersonaKit

    public final class ExecuTorchEngine: InferenceEngine {
        /// The method with baked weights: the same model without slots, to measure against.
        private static let bakedMethod = "base"

        public let program: Program
        public let placement: Placement

        private let module: Module
        private let observeModule: Module
        private let head: PatchedHead?
        /// The runtime does not keep what is bound to it.
        private var bound: [Tensor<Float>] = []

        /// `scratch`: a folder of the app's for patched heads.
        public init(bundle: ModelBundle, program: Program, scratch: URL) throws {
            self.program = program
            let file = bundle.folder.appending(path: program.path).path
            do {
                module = Module(filePath: file)
                try module.load(program.method)
                if try module.methodNames().contains(Self.bakedMethod) {
                    try module.load(Self.bakedMethod)
                }
                if let path = program.observePath, path != program.path {
                    observeModule = Module(filePath: bundle.folder.appending(path: path).path)
                } else {
                    observeModule = module
                }
                placement = Placement(
                    .delegates(try module.methodMetadata(program.method).backendNames))
                head = try program.head.map { head in
                    try PatchedHead(
                        file: try Data(contentsOf: bundle.folder.appending(path: head.path)),
                        program: program, method: head.method, scratch: scratch
                    )
                }
            } catch {
                throw EngineError(
                    "ExecuTorch cannot load \(program.path) for \(program.target): \(error); link "
                        + "the backend that it was lowered to, and link with -all_load"
                )
            }
        }

        public func bind(_ slots: SlotValues) throws {
            try head?.patch(slots.effective)
            var tensors: [Tensor<Float>] = []
            for feed in program.feeds where feed.patch == nil {
                guard let index = feed.index else {
                    throw EngineError("\(program.target) wants the index of \(feed.tensor)")
                }
                let values = feed.carries == .effective ? slots.effective : slots.change
                let tensor = Tensor<Float>(values[feed.tensor]!.values, shape: feed.shape)
                do {
                    try module.setInput(tensor, for: program.method, at: index)
                } catch {
                    throw EngineError("the program does not take slot \(feed.tensor): \(error)")
                }
                tensors.append(tensor)
            }
            bound = tensors
        }

        public func predict(_ inputs: [ModelInput]) throws -> FloatTensor {
            let outputs = try Self.execute(module, program.method, inputs.map(\.value))
            guard let head else { return try Self.tensor(outputs, 0) }
            return try head.predict(outputs)
        }

        public func predictBase(_ inputs: [ModelInput]) throws -> FloatTensor {
            try Self.tensor(Self.execute(module, Self.bakedMethod, inputs.map(\.value)), 0)
        }

        public func observe(
            _ inputs: [ModelInput]
        ) throws -> (features: FloatTensor, posterior: FloatTensor) {
            guard let method = program.observeMethod else {
                throw EngineError("this bundle observes item ids; it has no observe program")
            }
            let outputs = try Self.execute(observeModule, method, inputs.map(\.value))
            return (try Self.tensor(outputs, 0), try Self.tensor(outputs, 1))
        }

        fileprivate static func execute(
            _ module: Module, _ method: String, _ inputs: [any ValueConvertible]
        ) throws(EngineError) -> [Value] {
            do {
                return try module.execute(method, inputs)
            } catch {
                throw EngineError(
                    "method '\(method)' does not run with these inputs: \(error); the manifest says "
                        + "its inputs"
                )
            }
        }

        /// An output, copied: the runtime's own lives until the next call.
        fileprivate static func tensor(
            _ outputs: [Value], _ index: Int
        ) throws(EngineError) -> FloatTensor {
            guard outputs.indices.contains(index),
                let tensor: Tensor<Float> = outputs[index].tensor()
            else {
                throw EngineError("output \(index) is no float tensor; export the bundle again")
            }
            return FloatTensor(shape: tensor.shape, values: tensor.scalars())
        }
    }

    extension ModelInput {
        fileprivate var value: any ValueConvertible {
            switch self {
            case .float32(let tensor): Tensor<Float>(tensor.values, shape: tensor.shape)
            case .int64(let tensor): Tensor<Int64>(tensor.values, shape: tensor.shape)
            }
        }
    }

    /// The second half of a program in two.
    private final class PatchedHead {
        private let file: Data
        private let program: Program
        private let method: String
        private let place: URL
        private var module: Module?

        init(file: Data, program: Program, method: String, scratch: URL) throws {
            self.file = file
            self.program = program
            self.method = method
            try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
            place = scratch.appending(path: "head-\(UUID().uuidString).pte")
        }

        deinit {
            try? FileManager.default.removeItem(at: place)
        }

        /// Load the head with these slots. The head before must be gone first: XNNPACK keeps packed
        /// weights by name for as long as any module with that name lives.
        func patch(_ effective: SlotTensors) throws {
            module = nil
            try program.patchedHead(file, effective: effective).write(to: place, options: .atomic)
            let next = Module(filePath: place.path)
            try next.load(method)
            module = next
        }

        func predict(_ hidden: [Value]) throws -> FloatTensor {
            guard let module else {
                throw EngineError("the head of this program has not been given its slots yet")
            }
            return try ExecuTorchEngine.tensor(
                ExecuTorchEngine.execute(module, method, hidden), 0
            )
        }
    }

    private struct ExecuTorchLoader: EngineLoader {
        let program: Program
        let scratch: URL

        func load(_ bundle: ModelBundle) async throws -> sending any InferenceEngine {
            try ExecuTorchEngine(bundle: bundle, program: program, scratch: scratch)
        }
    }

    extension EngineFactory {
        /// `scratch`: a folder of the app's for patched heads.
        public static func execuTorch(_ program: Program, scratch: URL) -> EngineFactory {
            EngineFactory(
                label: "\(program.target) \(program.precision.rawValue)", target: program.target,
                precision: program.precision,
                key: "\(program.target) \(program.precision.rawValue)",
                loader: ExecuTorchLoader(program: program, scratch: scratch)
            )
        }
    }
#endif
