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
