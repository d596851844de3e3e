import Foundation
import Testing

@testable import PersonaKit

struct SwapTests {
    private let running = Swap.running(.prototype(1))

    @Test func aCandidateThatPassesItsProbeRuns() {
        #expect(running.begin(.prototype(2)).keep() == .running(.prototype(2)))
    }

    @Test func aCandidateThatFailsItsProbeGivesWayToWhatRanBefore() {
        #expect(running.begin(.prototype(2)).takeBack() == running)
    }

    @Test func whileACandidateIsTriedWhatRanBeforeStillCounts() {
        #expect(running.begin(.prototype(2)).settled == .prototype(1))
    }

    @Test func keepingWithoutACandidateChangesNothing() {
        #expect(running.keep() == running)
    }

    @Test func anEngineThatCannotGoBackPredictsNothingUntilSomethingIsBound() throws {
        let engine = LinearEngine()
        let model = try EditableModel(bundle: LinearEngine.bundle(), engine: engine)
        let input = [ModelInput.float32(FloatTensor(shape: [1, 2], values: [3, 4]))]
        #expect(try model.predict(input).values == [7])
        engine.faults = [.binding, .binding]
        #expect(throws: EngineError.self) { try model.use(.prototype(0)) }
        #expect(throws: EngineError.self) { try model.predict(input) }
        try model.resume(.base)
        #expect(try model.predict(input).values == [7])
    }

    @Test func aPrototypeRunsWhenItsGoldenOutputComes() throws {
        let model = try EditableModel(bundle: LinearEngine.bundle(), engine: LinearEngine())
        try model.use(.prototype(0))
        #expect(model.swap == .running(.prototype(0)))
        let input = [ModelInput.float32(FloatTensor(shape: [1, 2], values: [3, 4]))]
        #expect(try model.predict(input).values == [10])  // (1 + 1)·3 + 1·4
    }

    @Test func anEditWithAnotherProbeIsTakenBack() throws {
        let model = try EditableModel(bundle: LinearEngine.bundle(), engine: LinearEngine())
        try model.use(.prototype(0))
        let edit = LinearEngine.edit(change: [0, 1], probe: [99])
        let code = try verdict { try model.use(.edit(edit)) }
        #expect(code == "probe.mismatch" && model.swap == .running(.prototype(0)))
        let sound = LinearEngine.edit(change: [0, 1], probe: [3])  // 1·1 + (1 + 1)·1
        try model.use(.edit(sound))
        #expect(model.swap == .running(.edit(sound)))
    }

    @Test func anEngineThatDoesNotGiveTheGoldenOutputsIsNotStarted() throws {
        let engine = LinearEngine()
        engine.faults = [.wrongOutput]
        let code = try verdict {
            _ = try EditableModel(bundle: LinearEngine.bundle(), engine: engine)
        }
        #expect(code == "bundle.golden_mismatch")
    }
}

/// y = W x with one dense slot of one row, computed here: a model small enough to check by hand.
private final class LinearEngine: InferenceEngine {
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
    static func bundle() throws -> ModelBundle {
        func tensor(_ values: [Float]) -> FloatTensor {
            FloatTensor(shape: [1, values.count], values: values)
        }
        let none = FloatTensor.zeros([0])
        return ModelBundle(
            folder: URL(filePath: "/nowhere"), manifest: try Corpus.complete().with(slots: [slot]),
            digest: "b", keyID: "k", signer: .pinned, base: ["head.weight": tensor([1, 1])],
            prototypes: Prototypes(
                changes: [["head.weight": tensor([1, 0])]], mean: none, deviation: none,
                weight: none, bias: none
            ),
            golden: Golden(
                inputs: [[.float32(tensor([1, 1]))]], base: [tensor([2])],
                prototypes: [[tensor([3])]], edit: ["head.weight": tensor([2, 2])],
                edited: [tensor([6])], features: [], posterior: []
            ),
            editKeys: try KeyRing(publicKeys: [])
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
