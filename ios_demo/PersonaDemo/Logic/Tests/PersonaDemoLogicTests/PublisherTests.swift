import Foundation
import Testing

@testable import PersonaDemoLogic
@testable import PersonaKit

/// A cloud over HTTP whose bundle is the corpus's, signed by `signs`; and a publisher before it,
/// whose key document of the corpus names them both.
@MainActor @Suite struct PublisherTests {
    private nonisolated static let corpus = URL(filePath: #filePath)
        .appending(path: "../../../../../../tests/conformance").standardizedFileURL
    private nonisolated static let complete = corpus.appending(path: "bundles/complete")
    private nonisolated static let now = Timestamp.parse("2026-06-01T12:00:00Z")!

    private let scratch = Scratch()
    private let manifest: Manifest
    private let manifestData: Data
    /// Signed by `before`, and names `before` and `signs`.
    private let rotation: SignedKeys
    /// Signed by `signs`, and names `before` alone.
    private let revocation: SignedKeys
    private let before: Data
    private let signs: Data

    init() throws {
        manifestData = try Data(contentsOf: Self.complete.appending(path: Manifest.fileName))
        manifest = try Manifest(decoding: manifestData)
        rotation = try Self.document("good-second-signer")
        revocation = try Self.document("good-signer-gone")
        let both = try KeyDocument(decoding: rotation.data).bundleKeys
        before = try #require(both[rotation.signature.keyID]).der
        signs = try #require(both[revocation.signature.keyID]).der
    }

    /// A key document of the corpus, by the name of its case.
    private static func document(_ name: String) throws -> SignedKeys {
        let cases = try StrictJSONReader.parse(
            Data(contentsOf: corpus.appending(path: "keys/cases.json"))
        )
        guard case .array(let all) = cases,
            let one = all.first(where: { $0["name"] == .string(name) }),
            case .string(let file)? = one["file"], case .string(let id)? = one["key_id"],
            case .string(let signature)? = one["signature"]
        else { throw CocoaError(.fileReadCorruptFile) }
        return SignedKeys(
            data: try Data(contentsOf: corpus.appending(path: file)),
            signature: Signature(keyID: id, base64: signature)
        )
    }

    // MARK: What the cloud answers

    private let noKeys = LocalServer.Answer(
        status: 404, body: #"{"code": "keys.none", "detail": "none", "status": 404}"#
    )

    private func answer(_ keys: SignedKeys) -> LocalServer.Answer {
        LocalServer.Answer(
            headers: [
                "Persona-Key-Id": keys.signature.keyID,
                "Persona-Signature": Base64.encode(keys.signature.der),
            ],
            bytes: keys.data
        )
    }

    /// A whole bundle, and then these.
    private func cloud(_ answers: [LocalServer.Answer]) throws -> LocalServer {
        let models = """
            {"models": [{"model": "sensor-net", "task": "classification", \
            "bundle": "\(sha256(manifestData))", "created_at": "2026-05-01T00:00:00Z"}]}
            """
        let files = [Manifest.fileName, Manifest.signatureName] + manifest.files.keys.sorted()
        let bundle = try files.map { file in
            LocalServer.Answer(bytes: try Data(contentsOf: Self.complete.appending(path: file)))
        }
        return try LocalServer([LocalServer.Answer(body: models)] + bundle + answers)
    }

    /// The paths that were asked for once the bundle was there.
    private func askedAfterwards(_ server: LocalServer) -> [String] {
        server.requests.map { String($0.split(separator: " ")[1]) }
            .filter { !$0.hasPrefix("/v1/models") }
    }

    // MARK: What the app does

    private func app(embedded: URL? = nil) -> AppModel {
        let engine = EngineFactory(
            label: "golden", target: "cpu", precision: .fp32, key: "golden", loader: GoldenLoader()
        )
        return AppModel(
            platform: scratch.platform([engine], embedded: embedded), now: { Self.now }
        )
    }

    private func connect(_ server: LocalServer, publisher: Data? = nil) async throws -> AppModel {
        let app = app()
        app.connect(
            to: Pairing(
                address: try CloudAddress(server.url), publisher: publisher.map(KeyRing.id(of:))
            )
        )
        await app.settle()
        return app
    }

    private func refusal(_ app: AppModel) -> String? {
        guard case .disconnected(.told(let code, _)?) = app.phase else { return nil }
        return code
    }

    private func trustedBefore(_ key: Data) throws {
        try Connection(cloud: nil, bundle: "", publisherKey: key).save(in: scratch.url)
    }

    @Test func aLinkThatNamesTheSignerNeedsNoKeyDocument() async throws {
        let server = try cloud([])
        let app = try await connect(server, publisher: signs)
        #expect(app.session?.bundle.publicKey == signs)
        #expect(askedAfterwards(server) == [])
    }

    @Test func aLinkOfThePublisherBeforeLeadsToTheOneThatSignsNow() async throws {
        let server = try cloud([answer(rotation), answer(rotation)])
        let first = try await connect(server, publisher: before)
        #expect(first.session?.bundle.publicKey == signs)
        #expect(askedAfterwards(server) == ["/v1/keys", "/v1/keys"])

        // The one that somebody trusted stays the one that documents are followed from, and what
        // was learned needs no cloud the next time.
        #expect(Connection.load(from: scratch.url)?.publisherKey == before)
        let again = app()
        again.start()
        await again.settle()
        #expect(again.session?.bundle.publicKey == signs)
        let learned = LearnedKeys(
            folder: again.platform.deviceFolder(of: manifest.model),
            pinned: try KeyRing(publicKeys: [before])
        )
        #expect(learned.sequence == 4)
    }

    @Test func aPublisherWhomSomebodyTrustedLeadsToTheOneThatSignsNow() async throws {
        try trustedBefore(before)
        let server = try cloud([answer(rotation)])
        let app = try await connect(server)
        #expect(app.session?.bundle.publicKey == signs)
        #expect(askedAfterwards(server) == ["/v1/keys"])
    }

    @Test func theModelThatRunsGoesOnFromTheSamePublisher() async throws {
        try trustedBefore(before)
        let app = try await connect(try cloud([answer(rotation)]))
        let inspect = try #require(app.session?.inspect)
        let trusted = await inspect.live.bundleKeys
        #expect(trusted.holds(before) && trusted.holds(signs))
    }

    @Test func withoutKeyDocumentsABundleOfAnotherPublisherIsRefused() async throws {
        try trustedBefore(before)
        let app = try await connect(try cloud([noKeys]))
        #expect(refusal(app) == "bundle.unknown_key")
        #expect(Connection.load(from: scratch.url)?.publisherKey == before)
    }

    @Test func aKeyDocumentOfAnotherPublisherLeadsNowhere() async throws {
        try trustedBefore(before)
        let server = try cloud([answer(revocation), noKeys])
        let app = try await connect(server)
        #expect(refusal(app) == "bundle.unknown_key")
        #expect(askedAfterwards(server) == ["/v1/keys", "/v1/keys/1"])
    }

    @Test func aPublisherWhomNoKeyDocumentNamesLeadsNowhere() async throws {
        let server = try cloud([answer(rotation), noKeys])
        let app = try await connect(server, publisher: DigitModel.signingKey.der)
        #expect(refusal(app) == "bundle.unknown_key")
        #expect(Connection.load(from: scratch.url) == nil)
    }

    @Test func aBundleOfARevokedPublisherIsRefused() async throws {
        try trustedBefore(signs)
        let model = app(embedded: Self.complete)
        let learned = LearnedKeys(
            folder: model.platform.deviceFolder(of: manifest.model),
            pinned: try KeyRing(publicKeys: [signs])
        )
        try learned.learn(revocation, now: Self.now)
        model.useEmbeddedBundle()
        await model.settle()
        #expect(refusal(model) == "bundle.unknown_key")
    }
}

/// Loads an engine that knows the golden outputs and nothing else.
private struct GoldenLoader: EngineLoader {
    func load(_ bundle: ModelBundle) async throws -> sending any InferenceEngine {
        GoldenEngine(bundle)
    }
}

private final class GoldenEngine: InferenceEngine {
    let program: Program
    let placement = Placement(.unknown("a test"))
    private let golden: Golden
    private let answers: [(slots: SlotTensors, outputs: [FloatTensor])]
    private var bound = 0

    init(_ bundle: ModelBundle) {
        program = bundle.manifest.programs[0]
        golden = bundle.golden
        let prototypes = bundle.golden.prototypes.enumerated().map { index, outputs in
            (slots: bundle.values(for: .prototype(index)).effective, outputs: outputs)
        }
        answers =
            [(slots: bundle.values(for: .base).effective, outputs: bundle.golden.base)]
            + prototypes
            + [(slots: bundle.exampleValues.effective, outputs: bundle.golden.edited)]
    }

    func bind(_ slots: SlotValues) throws {
        guard let place = answers.firstIndex(where: { $0.slots == slots.effective }) else {
            throw EngineError("these slots have no golden outputs")
        }
        bound = place
    }

    func predict(_ inputs: [ModelInput]) throws -> FloatTensor { try output(bound, inputs) }
    func predictBase(_ inputs: [ModelInput]) throws -> FloatTensor { try output(0, inputs) }

    private func output(_ state: Int, _ inputs: [ModelInput]) throws -> FloatTensor {
        guard let place = golden.inputs.firstIndex(of: inputs) else {
            throw EngineError("these inputs have no golden outputs")
        }
        return answers[state].outputs[place]
    }

    func observe(
        _ inputs: [ModelInput]
    ) throws -> (features: FloatTensor, posterior: FloatTensor) {
        throw EngineError("this bundle observes items")
    }
}
