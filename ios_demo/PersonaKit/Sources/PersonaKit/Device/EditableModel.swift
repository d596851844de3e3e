/// An engine and the state that it is in: golden check, swap, probe, and back.
///
///     effective = base + prototype + edit

import Foundation

/// Owned by the actor `LiveModel`, so that a prediction sees one state and never a mixture.
final class EditableModel {
    let bundle: ModelBundle
    let engine: any InferenceEngine
    private(set) var swap: Swap = .running(.base)
    private let baseOutput: FloatTensor

    /// The health check: every golden output must come before anything else runs.
    init(bundle: ModelBundle, engine: any InferenceEngine) throws {
        self.bundle = bundle
        self.engine = engine
        try GoldenCheck.run(bundle: bundle, engine: engine)
        try engine.bind(bundle.values(for: .base))
        baseOutput = try engine.predict(bundle.golden.inputs[0])
    }

    func predict(_ inputs: [ModelInput]) throws -> FloatTensor {
        try checkSound()
        return try engine.predict(inputs)
    }

    /// Back to the base or to another state that has run before, bit for bit.
    func resume(_ state: LiveState) throws {
        do {
            try engine.bind(bundle.values(for: state))
            swap = .running(state)
        } catch {
            swap = swap.fail("\(error)")
            throw error
        }
    }

    /// Run a candidate. If its probe fails, what ran before runs on, and this throws.
    func use(_ candidate: Candidate) throws {
        swap = swap.begin(candidate)
        do {
            let values = bundle.values(for: candidate.state)
            try engine.bind(values)
            try Probe.check(
                expected: bundle.probe(of: candidate),
                output: try engine.predict(bundle.golden.inputs[0]),
                base: baseOutput,
                tolerance: engine.program.tolerance,
                changesNothing: values.changesNothing
            )
            swap = swap.keep()
        } catch {
            try takeBack()
            throw error
        }
    }

    private func takeBack() throws {
        do {
            try engine.bind(bundle.values(for: swap.settled))
            swap = swap.takeBack()
        } catch {
            swap = swap.fail("\(error)")
            throw error
        }
    }

    private func checkSound() throws {
        if case .broken(let reason, _) = swap {
            throw EngineError(
                "the program could not be set back to what ran before (\(reason)); "
                    + "roll back, or start the app again"
            )
        }
    }
}

extension ModelBundle {
    /// What the slots take in a state.
    func values(for state: LiveState) -> SlotValues {
        let none = manifest.slots.zeroEdit
        let prototype: SlotTensors
        let edit: SlotTensors
        switch state {
        case .base:
            (prototype, edit) = (none, none)
        case .prototype(let index):
            (prototype, edit) = (prototypes.changes[index], none)
        case .edit(let own):
            prototype = own.info.prototype.map { prototypes.changes[$0] } ?? none
            edit = own.tensors
        }
        return SlotValues(slots: manifest.slots, base: base, prototype: prototype, edit: edit)
    }

    /// The values of the golden file's example edit, relative to no prototype.
    var exampleValues: SlotValues {
        SlotValues(
            slots: manifest.slots, base: base, prototype: manifest.slots.zeroEdit, edit: golden.edit
        )
    }

    fileprivate func probe(of candidate: Candidate) -> FloatTensor {
        switch candidate {
        case .prototype(let index): golden.prototypes[index][0]
        case .edit(let edit): edit.probe
        }
    }
}

/// Whether a program gives a bundle's golden outputs, features and posteriors.
public enum GoldenCheck {
    /// Leaves the example edit bound. Throws `bundle.golden_mismatch`.
    public static func run(bundle: ModelBundle, engine: any InferenceEngine) throws {
        let golden = bundle.golden
        var series = [("base", bundle.values(for: .base), golden.base)]
        for (index, outputs) in golden.prototypes.enumerated() {
            series.append(("prototype.\(index)", bundle.values(for: .prototype(index)), outputs))
        }
        series.append(("edited", bundle.exampleValues, golden.edited))
        let tolerance = engine.program.tolerance
        for (name, values, outputs) in series {
            try engine.bind(values)
            for (index, expected) in outputs.enumerated() {
                let output = try engine.predict(golden.inputs[index])
                try compare("\(name).\(index)", output, expected, tolerance)
            }
        }
        for (index, (features, posterior)) in zip(golden.features, golden.posterior).enumerated() {
            let found = try engine.observe(golden.inputs[index])
            try compare("features.\(index)", found.features, features, tolerance)
            try compare("posterior.\(index)", found.posterior, posterior, tolerance)
        }
    }

    private static func compare(
        _ name: String, _ output: FloatTensor, _ expected: FloatTensor, _ tolerance: Double
    ) throws(FormatError) {
        guard Probe.agrees(output, with: expected, tolerance: tolerance) else {
            throw FormatError(
                .bundleGoldenMismatch,
                "golden \(name) is \(Probe.distance(output, expected)); \(tolerance) relative is "
                    + "allowed. Export the bundle again, and if that does not help, this processor "
                    + "needs another target"
            )
        }
    }
}
