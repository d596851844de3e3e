import Foundation

@testable import PersonaKit

/// y = W x with one dense slot of one row, computed here: a model small enough to check by hand.
final class LinearEngine: InferenceEngine {
    enum Fault {
        case binding
        case wrongOutput
    }

    var faults: [Fault] = []
    private var weight: [Float] = []

    static let slot = Slot(
        name: "head", kind: .dense, out: 1, in: 2, rank: 0, bias: false, bound: 10, biasBound: 0
    )
    let program = Program(
        target: "here", precision: .fp32, path: "p", method: "forward", observePath: nil,
        observeMethod: nil,
        feeds: [
            Feed(
                tensor: "head.weight", index: 1, input: nil, carries: .effective, shape: [1, 2],
                patch: nil
            )
        ], tolerance: 1e-6, verified: .executed, delegation: .object([]), head: nil,
        slotFeed: .object([])
    )
    let placement = Placement(.unknown("computed by hand"))

    func bind(_ slots: SlotValues) throws {
        if faults.first == .binding {
            faults.removeFirst()
            throw EngineError("cannot bind")
        }
        weight = slots.effective["head.weight"]!.values
    }

    func predict(_ inputs: [ModelInput]) throws -> FloatTensor {
        guard case .float32(let x) = inputs[0] else { throw EngineError("floats") }
        let y = weight[0] * x.values[0] + weight[1] * x.values[1]
        return FloatTensor(shape: [1, 1], values: [faults.first == .wrongOutput ? y + 1 : y])
    }

    func predictBase(_ inputs: [ModelInput]) throws -> FloatTensor { try predict(inputs) }

    func observe(
        _ inputs: [ModelInput]
    ) throws -> (features: FloatTensor, posterior: FloatTensor) {
        throw EngineError("observes items")
    }

    static func edit(change: [Float], probe: [Float]) -> Edit {
        Edit(
            info: EditInfo(
                model: "m", bundle: "b", device: "d", sequence: 1, prototype: nil,
                issuedAt: .distantPast, expiresAt: .distantFuture
            ),
            tensors: ["head.weight": FloatTensor(shape: [1, 2], values: change)],
            probe: FloatTensor(shape: [1, 1], values: probe)
        )
    }

    /// Base [1, 1]; one prototype [1, 0]; the golden input is [1, 1].
    static func bundle(
        digest: String = "b", editKeys: KeyRing = KeyRing([:])
    ) throws -> ModelBundle {
        func tensor(_ values: [Float]) -> FloatTensor {
            FloatTensor(shape: [1, values.count], values: values)
        }
        let none = FloatTensor.zeros([0])
        return ModelBundle(
            folder: URL(filePath: "/nowhere"), manifest: try Corpus.complete().with(slots: [slot]),
            digest: digest, signingKey: try P256PublicKey(der: SigningKey().publicKey),
            signer: .pinned, base: ["head.weight": tensor([1, 1])],
            prototypes: Prototypes(
                changes: [["head.weight": tensor([1, 0])]], mean: none, deviation: none,
                weight: none, bias: none
            ),
            golden: Golden(
                inputs: [[.float32(tensor([1, 1]))]], base: [tensor([2])],
                prototypes: [[tensor([3])]], edit: ["head.weight": tensor([2, 2])],
                edited: [tensor([6])], features: [], posterior: []
            ),
            editKeys: editKeys
        )
    }
}

extension Manifest {
    fileprivate func with(slots: [Slot]) -> Manifest {
        Manifest(
            model: model, task: task, createdAt: createdAt, inputs: inputs, outputs: outputs,
            slots: slots, observation: observation, prototypeCount: 1, base: base,
            prototypes: prototypes, golden: golden, programs: programs, editKeys: editKeys,
            maxEditBytes: maxEditBytes, maxObservationBytes: maxObservationBytes, files: files,
            madeBy: madeBy
        )
    }
}
