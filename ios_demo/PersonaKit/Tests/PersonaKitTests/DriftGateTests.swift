import Foundation
import Testing

@testable import PersonaKit

struct DriftGateTests {
    private let items = ObservationSpec.items(ItemsSpec(vocabulary: 4, minCount: 1, maxCount: 9))
    private let now = Date(timeIntervalSince1970: 1000)

    private func gate(
        _ told: WindowObservation?, kept: KeptEdit? = nil
    ) -> DriftGate {
        DriftGate(told: told, kept: kept)
    }

    @Test func aDeviceThatNeverAskedAsks() {
        let decision = gate(nil).decide(.items([1]), spec: items, now: now)
        #expect(decision == .ask(.neverAsked))
    }

    @Test func aWindowWithAQuarterOfItsItemsReplacedIsTheLimit() {
        let told = gate(.items([1, 2, 3, 4]))
        #expect(told.decide(.items([4, 3, 2, 1]), spec: items, now: now) == .rest(drift: 0))
        #expect(told.decide(.items([1, 2, 3, 3]), spec: items, now: now) == .ask(.drifted(1)))
        let eight = gate(.items([1, 2, 3, 4, 1, 2, 3, 4]))
        let decision = eight.decide(.items([1, 2, 3, 4, 1, 2, 3, 3]), spec: items, now: now)
        #expect(decision == .rest(drift: 0.5))
    }

    @Test func aRunningEditIsRenewedWhenLessThanATenthOfItsTimeIsLeft() {
        let issued = Date(timeIntervalSince1970: 0)
        for (end, asks) in [(1100.0, true), (1111, true), (1112, false), (900, true)] {
            let kept = KeptEdit.running(
                issuedAt: issued, expiresAt: Date(timeIntervalSince1970: end)
            )
            let decision = gate(.items([1]), kept: kept).decide(.items([1]), spec: items, now: now)
            #expect(decision == (asks ? .ask(.expiring) : .rest(drift: 0)), "\(end)")
        }
    }

    @Test func anEditThatIsKeptAndDoesNotRunIsAskedFor() {
        let decision = gate(.items([1]), kept: .resting).decide(.items([1]), spec: items, now: now)
        #expect(decision == .ask(.expiring))
    }

    @Test func pooledMeansThatMoveByTheirDeviationAreDriftAndNoiseIsNot() {
        let spec = PooledSpec(
            features: 2, classes: 2, minCount: 1, maxCount: 1000, trainingMass: [0.5, 0.5]
        )
        func window(_ mean: Float, count: Int, prior: Float = 0.5) -> WindowObservation {
            .pooled(
                PooledObservation(
                    count: count, mean: FloatTensor(shape: [2], values: [mean, mean]),
                    deviation: FloatTensor(shape: [2], values: [2, 2]),
                    classMass: FloatTensor(shape: [2], values: [0.5, 0.5]),
                    classPrior: FloatTensor(shape: [2], values: [prior, 1 - prior]),
                    classMean: FloatTensor.zeros([2, 2])
                )
            )
        }
        func drift(_ one: WindowObservation, _ other: WindowObservation) -> Double {
            DriftGate.drift(from: one, to: other, spec: .pooled(spec))
        }
        // √((2 ÷ 2)² − 2 · 2 ÷ 100) ÷ 0.5
        #expect(abs(drift(window(0, count: 100), window(2, count: 100)) - 1.9595917942) < 1e-9)
        // A shift that sampling may make is none: (0.35 ÷ 2)² < 2 · 2 ÷ 100.
        #expect(drift(window(0, count: 100), window(0.35, count: 100)) == 0)
        // (½ · 0.6 − 2 · ½ · 2 · √(2 · 0.02 · 0.25 ÷ π)) ÷ 0.25, where 0.6 is the sum of binary32's
        let mixed = drift(window(0, count: 100, prior: 0.5), window(0, count: 100, prior: 0.8))
        #expect(abs(mixed - 0.7486483808) < 1e-9)
    }
}
