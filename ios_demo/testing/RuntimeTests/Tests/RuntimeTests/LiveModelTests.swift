import EngineOnRuntime
import Foundation
import PersonaKit
import Testing

struct LiveModelTests {
    @Test(arguments: Sample.all)
    func aDeviceAdaptsGoesOnAfterARestartAndGoesBackBitForBit(_ sample: Sample) async throws {
        let place = try TemporaryFolder()
        let live = try sample.live(in: place)
        let input = live.bundle.golden.inputs[0]
        let base = try await live.predict(input)
        let observation = try await sample.observation(live)
        #expect(await live.driftDecision(for: observation) == .ask(.neverAsked))

        let personalisation = await live.personalise(
            with: try sample.client(), observation: observation
        )
        guard case .newEdit(let accepted, let roundTrip) = personalisation.outcome,
            case .edit(let edit) = personalisation.state
        else {
            Issue.record("no edit: \(personalisation.outcome)")
            return
        }
        #expect(accepted.info == edit.info && accepted.bytes > 500 && roundTrip > 0)
        // The probe is the cloud's own, by eager PyTorch.
        let edited = try await live.predict(input)
        #expect(distance(edited, edit.probe) <= 1e-5)
        #expect(bits(edited) != bits(base))
        #expect(await live.driftDecision(for: observation) == .rest(drift: 0))
        print("EDITED \(sample.name) \(distance(edited, edit.probe)) bytes \(accepted.bytes)")

        let restarted = try sample.live(in: place)
        #expect(await restarted.state == .edit(edit))
        #expect(bits(try await restarted.predict(input)) == bits(edited))

        try await restarted.rollBack()
        #expect(bits(try await restarted.predict(input)) == bits(base))
        #expect(await sample.stateAfterRestart(in: place) == .base)
    }

    @Test(arguments: Sample.all)
    func anEditIsTakenOnceAndAChangedOneNever(_ sample: Sample) async throws {
        let place = try TemporaryFolder()
        let live = try sample.live(in: place)
        let observation = try await sample.observation(live)
        _ = await live.personalise(with: try sample.client(), observation: observation)
        let state = await live.state
        let signed = try SignedEdit(storedAt: place.storedEdit())
        #expect(await refusal { _ = try await live.accept(signed) } == "edit.replayed")
        var data = signed.data
        data[data.count - 1] ^= 1
        let changed = SignedEdit(data: data, signature: signed.signature)
        #expect(await refusal { _ = try await live.accept(changed) } == "edit.bad_signature")
        #expect(await live.state == state)
        let log = await live.verificationLog
        #expect(log.map { $0.error?.code } == ["edit.bad_signature", "edit.replayed", nil])
    }

    @Test(arguments: Sample.all)
    func anEditForAnotherDeviceOrOutOfItsTimeDoesNotRun(_ sample: Sample) async throws {
        let place = try TemporaryFolder()
        let other = try TemporaryFolder()
        let live = try sample.live(in: place)
        let observation = try await sample.observation(live)
        _ = await live.personalise(with: try sample.client(), observation: observation)
        let stranger = try sample.live(in: other)
        let signed = try SignedEdit(storedAt: place.storedEdit())
        #expect(await refusal { _ = try await stranger.accept(signed) } == "edit.other_device")

        let later = Date().addingTimeInterval(366 * 86400)
        let old = try sample.live(in: place, now: { later })
        let state = await old.state
        if case .edit = state { Issue.record("an expired edit runs") }
        #expect(await old.verificationLog.first?.error?.code == "edit.expired")
        // It is kept, for a clock that is set right.
        guard case .edit = await sample.stateAfterRestart(in: place) else {
            Issue.record("the edit is gone")
            return
        }
    }

    @Test(arguments: Sample.all)
    func withoutACloudTheDeviceFallsBackToThePrototypeThatItChooses(_ sample: Sample) async throws {
        let place = try TemporaryFolder()
        let live = try sample.live(in: place)
        let observation = try await sample.observation(live)
        let nobody = try CloudClient(url: "http://127.0.0.1:9")
        let personalisation = await live.personalise(with: nobody, observation: observation)
        guard case .kept(let error) = personalisation.outcome else {
            Issue.record("an edit from nobody")
            return
        }
        #expect(error.code == "cloud.offline")
        let vector = observation.vector(live.bundle.manifest.observation)
        let chosen = live.bundle.prototypes.assign(vector)!
        #expect(personalisation.state == .prototype(chosen))
        let output = try await live.predict(live.bundle.golden.inputs[0])
        #expect(distance(output, live.bundle.golden.prototypes[chosen][0]) <= 1e-5)
    }

    @Test(arguments: Sample.all)
    func aTokenThatTheCloudDoesNotKnowIsReplaced(_ sample: Sample) async throws {
        let place = try TemporaryFolder()
        let live = try sample.live(in: place)
        let observation = try await sample.observation(live)
        _ = await live.personalise(with: try sample.client(), observation: observation)
        let file = place.device.appending(path: "state.json")
        let text = try String(contentsOf: file, encoding: .utf8)
        let spoilt = text.replacing(try Regex("\"token\":\"[^\"]*\""), with: "\"token\":\"x.y\"")
        try spoilt.write(to: file, atomically: true, encoding: .utf8)
        let again = try sample.live(in: place)
        let personalisation = await again.personalise(
            with: try sample.client(), observation: observation
        )
        guard case .newEdit = personalisation.outcome else {
            Issue.record("\(personalisation.outcome)")
            return
        }
    }

    @Test(arguments: Sample.all)
    func anEditThatReachesNoSlotIsTakenBack(_ sample: Sample) async throws {
        let place = try TemporaryFolder()
        let first = try sample.live(in: place)
        let observation = try await sample.observation(first)
        _ = await first.personalise(with: try sample.client(), observation: observation)
        let signed = try SignedEdit(storedAt: place.storedEdit())
        // The same device before its edit.
        let file = place.device.appending(path: "state.json")
        let text = try String(contentsOf: file, encoding: .utf8)
        try text.replacing(
            try Regex("\"sequence\":[0-9]*,\"edit\":[0-9]*"), with: "\"sequence\":0,\"edit\":null"
        )
        .write(to: file, atomically: true, encoding: .utf8)

        let bundle = try sample.bundle()
        let checks = bundle.manifest.prototypeCount + 3
        let deaf = try LiveModel(
            bundle: bundle, engine: DeafEngine(try sample.engine(bundle), after: checks),
            folder: place.device
        )
        let base = try await deaf.predict(bundle.golden.inputs[0])
        let code = await refusal { _ = try await deaf.accept(signed) }
        #expect(["probe.mismatch", "probe.no_effect"].contains(code))
        #expect(await deaf.state == .base)
        #expect(bits(try await deaf.predict(bundle.golden.inputs[0])) == bits(base))
        // It was tried once: it may not come back, not even on a sound engine.
        let sound = try sample.live(in: place)
        #expect(await refusal { _ = try await sound.accept(signed) } == "edit.replayed")
    }

    @Test(arguments: Sample.all)
    func aBundleComesFromTheCloudWholeAndVerified(_ sample: Sample) async throws {
        let place = try TemporaryFolder()
        let folder = place.url.appending(path: "bundle")
        let cloud = try sample.client()
        let model = try await cloud.models()[0]
        let bundle = try await cloud.downloadBundle(model.model, to: folder, trusting: nil)
        #expect(bundle.digest == (try sample.bundle().digest) && bundle.digest == model.bundle)
        #expect(try FileManager.default.contentsOfDirectory(atPath: place.url.path) == ["bundle"])
        // A file that was changed on the device is fetched anew.
        let golden = folder.appending(path: bundle.manifest.golden)
        try Data("spoilt".utf8).write(to: golden)
        let again = try await cloud.downloadBundle(model.model, to: folder, trusting: nil)
        #expect(again.golden == bundle.golden)
    }

    @Test(arguments: Sample.all)
    func aBenchmarkIsMeasuredKeptAndTakenByTheCloud(_ sample: Sample) async throws {
        let place = try TemporaryFolder()
        let live = try sample.live(in: place)
        let program = live.bundle.manifest.program(target: "executorch-xnnpack")!
        let plan = BenchmarkPlan(iterations: 120, warmUp: 5, coolDown: .zero)
        let benchmark = Benchmark(
            bundle: live.bundle, plan: plan, ledger: LoadLedger(folder: place.url),
            conditions: .current
        )
        let factory = EngineFactory.execuTorch(program, scratch: place.url)
        let result = try await benchmark.run(factory)
        #expect(result.loads.firstEver! > 0 && result.loads.cold == nil && result.loads.warm > 0)
        #expect(result.measurement.delegates.allSatisfy { $0 == "XnnpackBackend" })
        #expect(result.editedMicroseconds.count >= 120 && result.measurement.base.p50 > 0)
        try await live.report(result.measurement, to: try sample.client())
        let history = try BenchmarkHistory(folder: place.url.appending(path: "history"))
        try history.append(result)
        #expect(history.results().map(\.measurement) == [result.measurement])
        let m = result.measurement
        print("LATENCY \(sample.name) base \(m.base.p50) edited \(m.edited.p50) ratio \(m.ratio)")
    }
}

extension Sample {
    func stateAfterRestart(in place: TemporaryFolder) async -> LiveState? {
        try? await live(in: place).state
    }
}

/// An engine whose slots no longer take anything after some bindings.
private final class DeafEngine: InferenceEngine {
    private let engine: ExecuTorchEngine
    private var left: Int

    init(_ engine: sending ExecuTorchEngine, after bindings: Int) {
        self.engine = engine
        left = bindings
    }

    var program: Program { engine.program }
    var placement: Placement { engine.placement }

    func bind(_ slots: SlotValues) throws {
        left -= 1
        if left >= 0 { try engine.bind(slots) }
    }

    func predict(_ inputs: [ModelInput]) throws -> FloatTensor { try engine.predict(inputs) }

    func predictBase(_ inputs: [ModelInput]) throws -> FloatTensor {
        try engine.predictBase(inputs)
    }

    func observe(
        _ inputs: [ModelInput]
    ) throws -> (features: FloatTensor, posterior: FloatTensor) {
        try engine.observe(inputs)
    }
}
