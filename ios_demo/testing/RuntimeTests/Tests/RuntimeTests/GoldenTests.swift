import EngineOnRuntime
import Foundation
import PersonaKit
import Testing

struct GoldenTests {
    private static let limit: Float = 1e-5

    @Test(arguments: Sample.all)
    func everyGoldenOutputComesFromTheRealRuntimeWithinOneInAHundredThousand(_ sample: Sample)
        throws
    {
        let bundle = try sample.bundle()
        let engine = try sample.engine(bundle)
        let slots = bundle.manifest.slots
        let golden = bundle.golden
        let none = slots.zeroEdit
        func worst(
            _ prototype: SlotTensors, _ edit: SlotTensors, _ outputs: [FloatTensor]
        ) throws -> Float {
            try engine.bind(
                SlotValues(slots: slots, base: bundle.base, prototype: prototype, edit: edit)
            )
            return try zip(golden.inputs, outputs).map { inputs, expected in
                distance(try engine.predict(inputs), expected)
            }.max()!
        }
        var found = ["base": try worst(none, none, golden.base)]
        for (index, outputs) in golden.prototypes.enumerated() {
            found["prototype \(index)"] = try worst(bundle.prototypes.changes[index], none, outputs)
        }
        found["edited"] = try worst(none, golden.edit, golden.edited)
        found["baked"] = try zip(golden.inputs, golden.base).map { inputs, expected in
            distance(try engine.predictBase(inputs), expected)
        }.max()!
        for (index, (features, posterior)) in zip(golden.features, golden.posterior).enumerated() {
            let seen = try engine.observe(golden.inputs[index])
            found["features \(index)"] = distance(seen.features, features)
            found["posterior \(index)"] = distance(seen.posterior, posterior)
        }
        for (name, distance) in found {
            #expect(distance <= Self.limit, "\(name)")
        }
        #expect(engine.placement.summary == "XnnpackBackend")
        print("PARITY \(sample.name) \(found.values.max()!) over \(found.count) series")
    }

    @Test(arguments: Sample.all)
    func aValueInTheWrongPlaceOfASlotIsSeenByTheGoldenCheck(_ sample: Sample) throws {
        let bundle = try sample.bundle()
        let engine = try sample.engine(bundle)
        try GoldenCheck.run(bundle: bundle, engine: engine)
        var edit = bundle.golden.edit
        let name = bundle.manifest.slots.last!.tensors[0].name
        edit[name] = FloatTensor(shape: edit[name]!.shape, values: edit[name]!.values.reversed())
        try engine.bind(
            SlotValues(
                slots: bundle.manifest.slots, base: bundle.base,
                prototype: bundle.manifest.slots.zeroEdit, edit: edit
            )
        )
        let output = try engine.predict(bundle.golden.inputs[0])
        #expect(distance(output, bundle.golden.edited[0]) > Self.limit)
    }
}
