import Foundation
import Testing

@testable import PersonaKit

struct DriftConformanceTests {
    @Test func everyGateDecidesAsTheCorpusSays() throws {
        let specs = try Corpus.json("drift/specs.json")
        let cases = try Corpus.json("drift/cases.json").list
        #expect(cases.count > 30)
        for one in cases {
            let name = Comment(rawValue: one.text("name"))
            let spec = try ObservationSpec(JSONField(value: specs[one.text("spec")]!, path: "spec"))
            let gate = DriftGate(
                told: one["told"] == .null ? nil : try window(one.text("told"), spec),
                kept: one["kept"].flatMap(kept)
            )
            let decision = gate.decide(
                try window(one.text("observed"), spec), spec: spec,
                now: Timestamp.parse(one.text("now"))!
            )
            let (found, drift) = read(decision)
            #expect(found == one.text("decision"), name)
            if one["drift"] == nil {
                #expect(drift == nil, name)
            } else {
                let wanted = one.number("drift").real
                #expect(abs(drift! - wanted) <= max(1e-9 * wanted, 1e-12), name)
            }
        }
    }

    private func window(_ path: String, _ spec: ObservationSpec) throws -> WindowObservation {
        try ObservationEnvelope(json: Corpus.data(path), spec: spec).observation
    }

    private func kept(_ value: JSONValue) -> KeptEdit? {
        if value == .null { return nil }
        guard value.flag("runs") else { return .resting }
        return .running(
            issuedAt: Timestamp.parse(value.text("issued_at"))!,
            expiresAt: Timestamp.parse(value.text("expires_at"))!
        )
    }

    private func read(_ decision: DriftDecision) -> (name: String, drift: Double?) {
        switch decision {
        case .ask(.neverAsked): ("never_asked", nil)
        case .ask(.expiring): ("expiring", nil)
        case .ask(.drifted(let drift)): ("drifted", drift)
        case .rest(let drift): ("stay", drift)
        }
    }
}
