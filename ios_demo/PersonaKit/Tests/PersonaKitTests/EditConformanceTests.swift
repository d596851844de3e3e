import Foundation
import Testing

@testable import PersonaKit

struct EditConformanceTests {
    private struct World {
        let expectation: EditExpectation
        let base: SlotTensors
        let prototypes: Prototypes
        let assignments: SafetensorsContainer?

        init(_ document: JSONValue) throws {
            let slots = try JSONField(value: document["slots"]!, path: "slots").read(Slot.init)
            let count = Int(document.number("prototype_count").whole!)
            expectation = EditExpectation(
                model: document.text("model"), bundle: document.text("bundle"),
                device: document.text("device"), sequence: document.number("sequence").whole!,
                slots: slots, prototypeCount: count,
                probeShape: document.list("probe_shape").map { Int($0.plainWhole!) },
                maxBytes: Int(document.number("max_bytes").whole!)
            )
            base = try readBase(Corpus.data(document.text("base")), slots: slots)
            prototypes = try readPrototypes(
                Corpus.data(document.text("prototypes")), slots: slots, count: count,
                width: Int(document.number("observation_width").whole!)
            )
            if case .string(let path)? = document["assignments"] {
                assignments = try Corpus.container(path)
            } else {
                assignments = nil
            }
        }
    }

    private static func worlds() throws -> [String: World] {
        guard case .object(let members) = try Corpus.json("expectations.json") else { return [:] }
        return try Dictionary(
            uniqueKeysWithValues: members.map { ($0.key.text, try World($0.value)) }
        )
    }

    @Test func everyEditGetsTheVerdictOfTheCorpusAndItsSlotsBitForBit() throws {
        let worlds = try Self.worlds()
        let keys = try Corpus.keys("edits")
        let cases = try Corpus.json("cases.json").list
        #expect(cases.count >= 200)
        for one in cases {
            let name = one.text("name")
            let world = worlds[one.text("expectation")]!
            let signed = SignedEdit(
                data: try Corpus.data(one.text("edit")),
                signature: Signature(keyID: one.text("key_id"), base64: one.text("signature"))
            )
            var edit: Edit?
            let found = try verdict {
                edit = try EditFile.verify(
                    signed, keys: keys, expected: world.expectation,
                    now: Timestamp.parse(one.text("now"))!
                )
            }
            #expect(found == one.text("verdict"), "\(name)")
            if let edit { try compare(edit, with: one, in: world) }
        }
    }

    private func compare(_ edit: Edit, with one: JSONValue, in world: World) throws {
        let name = Comment(rawValue: one.text("name"))
        let slots = world.expectation.slots
        #expect(String(edit.info.sequence) == one.text("sequence"), name)
        #expect((edit.info.prototype.map(String.init) ?? "none") == one.text("prototype"), name)
        let values = SlotValues(
            slots: slots, base: world.base,
            prototype: edit.info.prototype.map { world.prototypes.changes[$0] } ?? slots.zeroEdit,
            edit: edit.tensors
        )
        #expect(values.changesNothing == one.flag("changes_nothing"), name)
        let expected = try Corpus.floats(one.text("expected"))
        #expect(expected.count == 2 * slots.flatMap(\.tensors).count + 1, name)
        #expect(bits(edit.probe) == bits(expected["probe.expected"]), name)
        for tensor in slots.flatMap(\.tensors) {
            let change = values.change[tensor.name]
            let effective = values.effective[tensor.name]
            #expect(bits(change) == bits(expected["change.\(tensor.name)"]), name)
            #expect(bits(effective) == bits(expected["effective.\(tensor.name)"]), name)
            #expect(change?.shape == expected["change.\(tensor.name)"]?.shape, name)
        }
    }

    @Test func everyDeviceChoosesThePrototypeOfTheCorpus() throws {
        var checked = 0
        for (name, world) in try Self.worlds() {
            guard let tensors = world.assignments?.tensors else { continue }
            let vectors = tensors["vectors"]!.floats!
            let width = vectors.shape[1]
            for (row, chosen) in tensors["chosen"]!.integers!.values.enumerated() {
                let vector = Array(vectors.values[row * width..<(row + 1) * width])
                #expect(world.prototypes.assign(vector) == Int(chosen), "\(name) \(row)")
                checked += 1
            }
        }
        #expect(checked > 0)
    }

    @Test func everyProbeGetsTheVerdictOfTheCorpus() throws {
        let arrays = try Corpus.floats("probes/probes.safetensors")
        for one in try Corpus.json("probes/cases.json").list {
            let name = one.text("name")
            let found = try verdict {
                try Probe.check(
                    expected: arrays["\(name).expected"]!, output: arrays["\(name).output"]!,
                    base: arrays["\(name).base"]!, tolerance: one.number("tolerance").real,
                    changesNothing: one.flag("zero")
                )
            }
            #expect(found == one.text("verdict"), "\(name)")
        }
    }
}
