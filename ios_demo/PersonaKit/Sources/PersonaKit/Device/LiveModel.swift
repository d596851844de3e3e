/// The live model: a device that checks its bundle, observes, asks, verifies, swaps, and falls back
/// when offline.
///
/// Fallback: last edit, then the prototype that the device chooses itself, then the base.

import Foundation

/// An edit that became active.
public struct AcceptedEdit: Sendable, Equatable {
    public let info: EditInfo
    /// Size of the edit's file.
    public let bytes: Int
    /// From its bytes in hand to the probe passed, verification included.
    public let toActiveMilliseconds: Double
}

/// What came of asking for an edit.
public struct Personalisation: Sendable {
    public enum Outcome: Sendable {
        case newEdit(AcceptedEdit, roundTripMilliseconds: Double)
        /// No new edit, and why.
        case kept(any CodedError)
    }

    /// What runs now.
    public let state: LiveState
    public let outcome: Outcome
}

/// What a device is and has.
public struct DeviceStatus: Sendable, Equatable {
    /// As the cloud named it; nil before enrolment.
    public let device: String?
    /// Of the newest edit that was ever accepted.
    public let sequence: Int64
    public let state: LiveState
    /// Size of the active edit's file.
    public let editBytes: Int?
    public let placement: Placement
}

/// What became of a file that was verified.
public struct VerificationEntry: Sendable, Identifiable {
    public let id: Int
    public let date: Date
    /// What was verified, such as "edit 7 from the cloud".
    public let what: String
    /// nil where it was taken.
    public let error: (any CodedError)?
}

/// One device's model in a folder of its own. Its calls come one after another, so a prediction
/// sees one state, never a mixture.
public actor LiveModel {
    public nonisolated let bundle: ModelBundle

    private let model: EditableModel
    private let store: DeviceStore
    private let keys: LearnedKeys
    private let now: @Sendable () -> Date
    private var log: [VerificationEntry] = []
    private var lastTurn: Task<Void, Never>?

    /// Answers of the cloud that another token cures.
    private static let staleToken: Set<String> = ["token.unknown", "token.expired"]
    private static let longestLog = 100

    /// Check the golden vectors, and go on with the last edit if it is still good.
    ///
    /// `pinned`: the bundle keys that the app names, whose key documents it takes; nil for the key
    /// that signed the bundle. Throws `FormatError` `bundle.golden_mismatch`, `EngineError`
    /// or `StorageError`.
    public init(
        bundle: ModelBundle, engine: sending any InferenceEngine, folder: URL,
        pinned: KeyRing? = nil, now: @escaping @Sendable () -> Date = { Date() }
    ) throws {
        self.bundle = bundle
        self.now = now
        let model = try EditableModel(bundle: bundle, engine: engine)
        let store = try DeviceStore(folder: folder, bundle: bundle.digest)
        let keys = LearnedKeys(folder: folder, pinned: pinned ?? bundle.signerKeys)
        let entry = Self.restore(model, store, keys, now())
        self.model = model
        self.store = store
        self.keys = keys
        log = entry.map { [$0] } ?? []
    }

    /// Go on with the stored edit. An edit whose time is not now is kept for a clock set right, and
    /// its prototype runs; one that can never run is forgotten.
    private static func restore(
        _ model: EditableModel, _ store: DeviceStore, _ keys: LearnedKeys, _ now: Date
    ) -> VerificationEntry? {
        guard let sequence = store.state.edit, let signed = store.active() else { return nil }
        let what = "edit \(sequence) from the last start"
        do {
            let edit = try EditFile.verify(
                signed, keys: keys.editKeys(at: now) ?? model.bundle.editKeys,
                expected: model.bundle.expectation(
                    device: store.state.device, sequence: sequence - 1
                ),
                now: now
            )
            try model.use(.edit(edit))
            return VerificationEntry(id: 0, date: now, what: what, error: nil)
        } catch let error as FormatError {
            if error.refusal == .editExpired || error.refusal == .editFromFuture {
                useGroup(prototype(of: signed), model)
            } else {
                try? store.deactivate()
            }
            return VerificationEntry(id: 0, date: now, what: what, error: error)
        } catch {
            let fault = EngineError("\(error)")
            return VerificationEntry(id: 0, date: now, what: what, error: fault)
        }
    }

    private static func prototype(of signed: SignedEdit) -> Int? {
        guard let container = try? SafetensorsContainer(decoding: signed.data) else { return nil }
        return try? EditFile.readInfo(container.metadata).prototype
    }

    /// Run a prototype, if there is that one and it holds on this processor.
    private static func useGroup(_ index: Int?, _ model: EditableModel) {
        guard let index, index < model.bundle.manifest.prototypeCount else { return }
        try? model.use(.prototype(index))
    }

    // MARK: Running

    /// What runs now.
    public var state: LiveState { model.swap.settled }

    public var status: DeviceStatus {
        DeviceStatus(
            device: store.state.device.isEmpty ? nil : store.state.device,
            sequence: store.state.sequence, state: state, editBytes: activeBytes,
            placement: model.engine.placement
        )
    }

    private var activeBytes: Int? {
        guard case .edit = state else { return nil }
        return store.active()?.data.count
    }

    /// What was verified and what came of it, the newest first.
    public var verificationLog: [VerificationEntry] { log.reversed() }

    /// One sample's inputs, in the manifest's order → the first output, with what is active.
    public func predict(_ inputs: [ModelInput]) throws -> FloatTensor {
        retireExpired()
        return try model.predict(inputs)
    }

    /// The same without any edit.
    public func predictBase(_ inputs: [ModelInput]) throws -> FloatTensor {
        try model.engine.predictBase(inputs)
    }

    /// An edit past its time gives way to the prototype that it was made around.
    private func retireExpired() {
        guard case .edit(let edit) = state, edit.info.expiresAt <= now() else { return }
        giveWay(to: edit.info.prototype)
    }

    private func giveWay(to prototype: Int?) {
        guard (try? model.resume(.base)) != nil else { return }
        Self.useGroup(prototype, model)
    }

    // MARK: Observing

    /// The observation of a window: unlabelled samples, oldest first, each with its inputs. Of a
    /// longer window the newest count.
    public func observe(_ window: [[ModelInput]]) throws -> WindowObservation {
        guard case .pooled(let spec) = bundle.manifest.observation else {
            throw EngineError("this bundle observes item ids; it has no observe program")
        }
        let newest = window.suffix(spec.maxCount)
        var features: [Float] = []
        var posterior: [Float] = []
        for sample in newest {
            let found = try model.engine.observe(sample)
            features += found.features.values
            posterior += found.posterior.values
        }
        return try WindowObservation(
            pooling: Self.stacked(features, newest.count, spec.features),
            posterior: Self.stacked(posterior, newest.count, spec.classes), spec: spec
        )
    }

    private static func stacked(_ values: [Float], _ rows: Int, _ width: Int) -> FloatTensor {
        FloatTensor(shape: [rows, rows == 0 ? width : values.count / rows], values: values)
    }

    /// The observation of item ids, oldest first; of a longer window the newest.
    public func observe(items: [Int64]) throws -> WindowObservation {
        guard case .items(let spec) = bundle.manifest.observation else {
            throw EngineError("this bundle observes samples, not item ids")
        }
        return try WindowObservation(items: items, spec: spec)
    }

    /// Whether it is worth asking the cloud.
    public func driftDecision(for observation: WindowObservation) -> DriftDecision {
        retireExpired()
        let spec = bundle.manifest.observation
        let gate = DriftGate(told: store.lastTold(spec), kept: keptEdit)
        return gate.decide(observation, spec: spec, now: now())
    }

    private var keptEdit: KeptEdit? {
        if case .edit(let edit) = state {
            return .running(issuedAt: edit.info.issuedAt, expiresAt: edit.info.expiresAt)
        }
        return store.state.edit == nil ? nil : .resting
    }

    // MARK: Editing

    /// Ask for an edit and activate it; on any failure fall back, and say why.
    public func personalise(
        with cloud: CloudClient, observation: WindowObservation
    ) async -> Personalisation {
        do {
            let outcome = try await inTurn { [self] in
                try await ask(cloud, observation)
            }
            return Personalisation(state: state, outcome: outcome)
        } catch {
            fallBack(observation)
            let problem = error as? any CodedError ?? EngineError("\(error)")
            return Personalisation(state: state, outcome: .kept(problem))
        }
    }

    private func ask(
        _ cloud: CloudClient, _ observation: WindowObservation
    ) async throws -> Personalisation.Outcome {
        let envelope = ObservationEnvelope(bundle: bundle.digest, observation: observation)
        let name = bundle.manifest.model
        let clock = ContinuousClock()
        var sent = clock.now
        let signed = try await withToken(cloud) { token throws(CloudError) in
            sent = clock.now
            return try await cloud.requestEdit(model: name, token: token, envelope: envelope)
        }
        let roundTrip = sent.duration(to: clock.now)
        try store.told(envelope)
        if signed.newestKeys > keys.sequence {
            await learnKeys(from: cloud)
        }
        let accepted = try accept(signed)
        return .newEdit(accepted, roundTripMilliseconds: roundTrip.milliseconds)
    }

    /// Send a measurement.
    public func report(_ measurement: LatencyMeasurement, to cloud: CloudClient) async throws {
        try await inTurn { [self] in
            try await withToken(cloud) { token throws(CloudError) in
                try await cloud.report(measurement, token: token)
            }
        }
    }

    /// Verify, swap, probe and keep an edit. Throws `FormatError` with a stable code, or
    /// `StorageError` where the edit cannot be kept; then what ran before runs on.
    public func accept(_ signed: SignedEdit) throws -> AcceptedEdit {
        let before = state
        let clock = ContinuousClock()
        let start = clock.now
        do {
            let moment = now()
            let edit = try EditFile.verify(
                signed, keys: editKeys(at: moment),
                expected: bundle.expectation(
                    device: store.state.device, sequence: store.state.sequence
                ),
                now: moment
            )
            do {
                try model.use(.edit(edit))
            } catch let error as FormatError {
                try? store.refused(sequence: edit.info.sequence)
                throw error
            }
            let toActive = start.duration(to: clock.now)
            do {
                try store.activate(signed, sequence: edit.info.sequence)
            } catch {
                try model.resume(before)
                throw error
            }
            record("edit \(edit.info.sequence) from the cloud", nil)
            return AcceptedEdit(
                info: edit.info, bytes: signed.data.count,
                toActiveMilliseconds: toActive.milliseconds
            )
        } catch {
            record("an edit from the cloud", error as? any CodedError ?? EngineError("\(error)"))
            throw error
        }
    }

    /// Without the cloud: the last edit while it is good, else a prototype, else the base. A
    /// prototype that fails its golden output on this processor is not used.
    @discardableResult
    public func fallBack(_ observation: WindowObservation) -> LiveState {
        retireExpired()
        if case .edit = state { return state }
        Self.useGroup(
            bundle.prototypes.assign(observation.vector(bundle.manifest.observation)), model
        )
        return state
    }

    /// Take the edit back: the base runs again, bit for bit, now and after a restart.
    public func rollBack() throws {
        try model.resume(.base)
        try store.deactivate()
    }

    private func record(_ what: String, _ error: (any CodedError)?) {
        let id = (log.last?.id ?? -1) + 1
        log.append(VerificationEntry(id: id, date: now(), what: what, error: error))
        log.removeFirst(max(0, log.count - Self.longestLog))
    }

    // MARK: Trusting keys

    /// The keys that verify bundles: those that the app pins, until a key document says.
    public var bundleKeys: KeyRing { keys.bundleKeys }

    private func editKeys(at moment: Date) -> KeyRing {
        keys.editKeys(at: moment) ?? bundle.editKeys
    }

    /// Trust what the cloud's key documents say, as far as they can be had and hold.
    ///
    /// An edit whose key is no longer trusted gives way to the prototype that it was made around.
    private func learnKeys(from cloud: CloudClient) async {
        do {
            try await keys.catchUp(with: cloud, now: now())
        } catch {
            let fault = error as? any CodedError ?? EngineError("\(error)")
            record("a key document from the cloud", fault)
        }
        guard case .edit(let edit) = state, let signed = store.active(),
            !editKeys(at: now()).knows(signed.signature.keyID)
        else { return }
        giveWay(to: edit.info.prototype)
        try? store.deactivate()
    }

    // MARK: Being known to the cloud

    /// Run a request with our token; where the cloud no longer takes it, get another and ask again.
    /// An expired token is renewed, and we stay who we are; otherwise we enrol anew.
    private func withToken<Answer: Sendable>(
        _ cloud: CloudClient, _ request: (String) async throws(CloudError) -> Answer
    ) async throws -> Answer {
        if store.state.token.isEmpty {
            try await enrol(cloud)
        }
        do {
            return try await request(store.state.token)
        } catch {
            guard Self.staleToken.contains(error.code) else { throw error }
        }
        if try await !renewed(cloud) {
            try store.forgetEnrolment()
            try await enrol(cloud)
        }
        return try await request(store.state.token)
    }

    private func enrol(_ cloud: CloudClient) async throws {
        let enrolment = try await cloud.enrol()
        let changed = enrolment.device != store.state.device
        try store.enrolled(device: enrolment.device, token: enrolment.token)
        if changed, case .edit = state {
            try model.resume(.base)
        }
    }

    /// Whether the cloud gave another token for the one that we have.
    private func renewed(_ cloud: CloudClient) async throws -> Bool {
        let mine = Enrolment(device: store.state.device, token: store.state.token)
        do {
            let renewed = try await cloud.renew(mine)
            try store.enrolled(device: renewed.device, token: renewed.token)
            return true
        } catch CloudError.refused {
            return false
        }
    }

    /// An actor lets others in while it waits for the network; whole conversations with the cloud
    /// go one after another all the same, so that a device enrols once.
    private func inTurn<Answer: Sendable>(
        _ conversation: @escaping @Sendable () async throws -> Answer
    ) async throws -> Answer {
        let before = lastTurn
        let mine = Task {
            await before?.value
            try Task.checkCancellation()
            return try await conversation()
        }
        lastTurn = Task { _ = try? await mine.value }
        return try await withTaskCancellationHandler {
            try await mine.value
        } onCancel: {
            mine.cancel()
        }
    }
}

extension Duration {
    var milliseconds: Double {
        Double(components.seconds) * 1e3 + Double(components.attoseconds) * 1e-15
    }
}
