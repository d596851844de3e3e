import Foundation
import Testing

@testable import PersonaKit

struct ObservationConformanceTests {
    @Test func everyObservationGetsTheVerdictOfTheCorpusAndItsVector() throws {
        let specs = try Corpus.json("observations/specs.json")
        let cases = try Corpus.json("observations/cases.json").list
        #expect(cases.count > 100)
        for one in cases {
            let name = Comment(rawValue: one.text("name"))
            let spec = try ObservationSpec(JSONField(value: specs[one.text("spec")]!, path: "spec"))
            var observation: WindowObservation?
            let found = try verdict {
                observation = try read(one, spec)
            }
            #expect(found == one.text("verdict"), name)
            if let observation {
                try compare(observation.vector(spec), with: one)
                // What this device would send is read back as the same.
                let envelope = ObservationEnvelope(bundle: "b", observation: observation)
                let again = try ObservationEnvelope(decoding: envelope.encoded(), spec: spec)
                #expect(again == envelope, name)
            }
        }
    }

    private func read(_ one: JSONValue, _ spec: ObservationSpec) throws -> WindowObservation {
        let data = try Corpus.data(one.text("file"))
        let envelope: ObservationEnvelope
        switch one.text("form") {
        case "json":
            envelope = try ObservationEnvelope(json: data, spec: spec)
        case "safetensors":
            envelope = try ObservationEnvelope(decoding: data, spec: spec)
        default:
            guard case .pooled(let pooled) = spec else { fatalError("windows are pooled") }
            let window = try Corpus.floats(one.text("file"))
            return try WindowObservation(
                pooling: window["features"]!, posterior: window["posterior"]!, spec: pooled
            )
        }
        #expect(envelope.bundle == one.text("bundle"))
        return envelope.observation
    }

    private func compare(_ vector: [Float], with one: JSONValue) throws {
        let expected = try Corpus.floats(one.text("vector"))["vector"]!.values
        let name = Comment(rawValue: one.text("name"))
        if one.text("form") == "window" {
            #expect(vector.count == expected.count, name)
            for (found, wanted) in zip(vector, expected) {
                #expect(abs(found - wanted) <= 1e-6 * abs(wanted) + 1e-7, name)
            }
        } else {
            #expect(vector.map(\.bitPattern) == expected.map(\.bitPattern), name)
        }
    }
}
