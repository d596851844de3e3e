// The app as a whole: from nothing, by a cloud or the bundle in the app, to a model that runs.
//
// A bundle is used when its signature, every file and its golden outputs have been checked, and when
// somebody has said that they know its publisher, or one whose key documents lead to it.

import Foundation
import Observation
import PersonaKit

/// A checked bundle whose publisher nobody has vouched for yet.
public struct Candidate: Sendable {
    public let bundle: ModelBundle
    let cloud: CloudAddress?

    /// What to compare with the terminal or the publisher's page.
    public var publisher: String { bundle.keyID }
    public var source: String? { cloud?.text }

    fileprivate func client() throws(CloudError) -> CloudClient? {
        guard let cloud else { return nil }
        return try CloudClient(url: cloud.url.absoluteString)
    }
}

@MainActor @Observable
public final class AppModel {
    public enum Phase {
        case starting
        case disconnected(Failure?)
        case asking(CloudAddress)
        /// fraction: 0…1.
        case downloading(CloudAddress, fraction: Double)
        case confirming(Candidate)
        /// Golden outputs are being compared.
        case checking(model: String)
        case running(Session)
    }

    public private(set) var phase = Phase.starting
    public let platform: Platform
    @ObservationIgnored private let now: @Sendable () -> Date
    @ObservationIgnored private var work: Task<Void, Never>?

    public init(platform: Platform, now: @escaping @Sendable () -> Date = Date.init) {
        self.platform = platform
        self.now = now
    }

    public var session: Session? {
        if case .running(let session) = phase { session } else { nil }
    }

    public var hasEmbeddedBundle: Bool { platform.embedded != nil }

    /// Whether something ran before that `start` goes on with.
    public var canResume: Bool { Connection.load(from: platform.folder) != nil }

    /// Goes on with what ran last, else with the bundle in the app.
    public func start() {
        perform { try await self.resume() }
    }

    public func connect(to pairing: Pairing) {
        perform { try await self.fetch(pairing) }
    }

    public func useEmbeddedBundle() {
        perform { try await self.openEmbedded(publisher: nil) }
    }

    /// Somebody knows the publisher.
    public func trust(_ candidate: Candidate) {
        perform { try await self.adopt(candidate, trusting: candidate.bundle.publicKey) }
    }

    public func cancel() {
        work?.cancel()
        work = nil
        phase = .disconnected(nil)
    }

    /// Forgets cloud and publisher; edits stay with their bundle.
    public func disconnect() {
        Connection.forget(in: platform.folder)
        cancel()
    }

    /// Waits for what was begun last; for tests and for runs without a screen.
    public func settle() async {
        await work?.value
    }

    private func perform(_ steps: @escaping @MainActor () async throws -> Void) {
        work?.cancel()
        work = Task {
            do {
                try await steps()
            } catch {
                guard !Task.isCancelled else { return }
                phase = .disconnected(Failure(error))
            }
        }
    }

    private func resume() async throws {
        guard let stored = Connection.load(from: platform.folder) else {
            guard platform.embedded != nil else {
                phase = .disconnected(nil)
                return
            }
            return try await openEmbedded(publisher: nil)
        }
        guard let cloud = stored.cloud else {
            return try await openEmbedded(publisher: stored.publisher)
        }
        let folder = bundles.appending(path: stored.bundle)
        let bundle = try await Self.open(folder)
        let address = try CloudAddress(cloud.absoluteString)
        try await accept(Candidate(bundle: bundle, cloud: address), publisher: stored.publisher)
    }

    private func openEmbedded(publisher: String?) async throws {
        guard let embedded = platform.embedded else { throw Failure.noBundle }
        let bundle = try await Self.open(embedded)
        try await accept(
            Candidate(bundle: bundle, cloud: nil), publisher: publisher ?? bundle.keyID)
    }

    private func fetch(_ pairing: Pairing) async throws {
        let address = pairing.address
        phase = .asking(address)
        let client = try CloudClient(url: address.url.absoluteString)
        guard let model = try await client.models().first else { throw Failure.noModel }
        phase = .downloading(address, fraction: 0)
        let bundle = try await client.downloadBundle(
            model.model, to: bundles.appending(path: model.bundle), trusting: nil
        ) { fraction in
            Task { @MainActor [weak self] in self?.show(fraction, from: address) }
        }
        try Task.checkCancellation()
        try await accept(Candidate(bundle: bundle, cloud: address), publisher: pairing.publisher)
    }

    private func show(_ fraction: Double, from address: CloudAddress) {
        guard case .downloading(address, let before) = phase, fraction > before else { return }
        phase = .downloading(address, fraction: fraction)
    }

    /// Goes on where the publisher is the known one or one that it leads to, asks where none is
    /// known.
    private func accept(_ candidate: Candidate, publisher: String?) async throws {
        guard let known = publisher ?? Connection.load(from: platform.folder)?.publisher else {
            phase = .confirming(candidate)
            return
        }
        guard let key = try await publicKey(known, for: candidate) else {
            throw unknown(candidate, to: known, "no key document of the cloud names \(known)")
        }
        try await check(candidate, against: key)
        try await adopt(candidate, trusting: key)
    }

    /// Whether this publisher signed the bundle, or one that its key documents lead to: what the
    /// device has learned, else what the cloud has to tell.
    private func check(_ candidate: Candidate, against publisher: Data) async throws {
        let keys = LearnedKeys(
            folder: platform.deviceFolder(of: candidate.bundle.manifest.model),
            pinned: try KeyRing(publicKeys: [publisher])
        )
        if keys.bundleKeys.holds(candidate.bundle.publicKey) { return }
        let known = KeyRing.id(of: publisher)
        var fault = "no key document of \(known) names \(candidate.publisher)"
        if let client = try candidate.client() {
            do {
                try await keys.catchUp(with: client, now: now())
            } catch let error as FormatError {
                if error.refusal != .keysReplayed { fault = error.message }
            }
        }
        guard keys.bundleKeys.holds(candidate.bundle.publicKey) else {
            throw unknown(candidate, to: known, fault)
        }
    }

    /// The key that somebody means by its id: the one that was trusted before, the bundle's, or one
    /// that the cloud's key documents name.
    private func publicKey(_ id: String, for candidate: Candidate) async throws -> Data? {
        let stored = Connection.load(from: platform.folder)?.publisherKey
        let keys = [stored, candidate.bundle.publicKey].compactMap(\.self)
        if let key = keys.first(where: { KeyRing.id(of: $0) == id }) { return key }
        return try await candidate.client()?.bundleKey(id)
    }

    private func unknown(
        _ candidate: Candidate, to known: String, _ reason: String
    ) -> FormatError {
        FormatError(
            .bundleUnknownKey,
            """
            the bundle is signed by \(candidate.publisher), and you trusted \(known): \(reason). \
            Disconnect first if you know the publisher's new key
            """
        )
    }

    /// publisher: the public key that somebody trusted, of the bundle's signer or one before it.
    private func adopt(_ candidate: Candidate, trusting publisher: Data) async throws {
        phase = .checking(model: candidate.bundle.manifest.model)
        let session = try await Session.open(
            candidate.bundle, cloud: candidate.cloud,
            pinned: try KeyRing(publicKeys: [publisher]), platform: platform
        )
        try Task.checkCancellation()
        let stored = Connection(
            cloud: candidate.cloud?.url,
            bundle: candidate.bundle.digest,
            publisherKey: publisher
        )
        try stored.save(in: platform.folder)
        phase = .running(session)
    }

    private var bundles: URL { platform.folder.appending(path: "bundles") }

    /// Reads and checks every file, off the main actor.
    private nonisolated static func open(_ folder: URL) async throws -> ModelBundle {
        try ModelBundle.open(at: folder, trusting: nil)
    }
}
