import Foundation
import Testing

@testable import PersonaKit

/// A phone whose app pins one publisher and whose bundle names one edit key, and a cloud over HTTP
/// that goes on to other keys.
struct LearnedKeysTests {
    private static let start = Timestamp.parse("2026-06-01T12:00:00Z")!
    private static let end = Timestamp.parse("2026-06-03T12:00:00Z")!
    private static let digest = sha256(Data("a bundle".utf8))

    private let publisher = SigningKey()
    private let nextPublisher = SigningKey()
    private let oldKey = SigningKey()
    private let newKey = SigningKey()
    private let stranger = SigningKey()
    private let place: TemporaryFolder
    private let observation = WindowObservation.items([1, 2, 3])

    init() throws {
        place = try TemporaryFolder()
    }

    private func phone(at now: Date = Self.start) throws -> LiveModel {
        let bundle = try LinearEngine.bundle(digest: Self.digest, editKeys: oldKey.ring)
        return try LiveModel(
            bundle: bundle, engine: LinearEngine(), folder: place.url, pinned: publisher.ring,
            now: { now }
        )
    }

    private func ask(_ phone: LiveModel, _ server: LocalServer) async throws -> Personalisation {
        await phone.personalise(with: try CloudClient(url: server.url), observation: observation)
    }

    /// `ok`, or the code that says why there is no new edit.
    private func outcome(_ phone: LiveModel, _ server: LocalServer) async throws -> String {
        switch try await ask(phone, server).outcome {
        case .newEdit: "ok"
        case .kept(let error): error.code
        }
    }

    // MARK: What the cloud answers

    private let enrolment = LocalServer.Answer(
        status: 201, body: #"{"device": "phone", "token": "t"}"#
    )
    private let noKeys = LocalServer.Answer(
        status: 404, body: #"{"code": "keys.none", "detail": "none", "status": 404}"#
    )

    private func signed(_ data: Data, _ key: SigningKey, keys: Int = 0) -> LocalServer.Answer {
        let signature = key.signature(over: data)
        return LocalServer.Answer(
            headers: [
                "Persona-Key-Id": signature.keyID,
                "Persona-Signature": Base64.encode(signature.der), "Persona-Keys": String(keys),
            ],
            bytes: data
        )
    }

    /// Edits around prototype 0: (1 + 1 + 0)·1 + (1 + 0 + 1)·1 = 4.
    private func edit(_ sequence: Int) -> Data {
        SafetensorsContainer(
            metadata: [
                "format": EditFile.format, "model": "sensor-net", "bundle": Self.digest,
                "device": "phone", "sequence": String(sequence), "prototype": "0",
                "issued_at": "2026-06-01T12:00:00Z", "expires_at": "2026-06-08T12:00:00Z",
            ],
            tensors: [
                ("head.weight", StoredTensor(FloatTensor(shape: [1, 2], values: [0, 1]))),
                ("probe.expected", StoredTensor(FloatTensor(shape: [1, 1], values: [4]))),
            ]
        ).encoded()
    }

    private func document(
        _ sequence: Int, edits: [SigningKey], until: Date? = nil, bundles: [SigningKey]
    ) -> Data {
        func entry(_ key: SigningKey, _ more: [JSONMember] = []) -> JSONValue {
            .object(
                [JSONMember("id", .string(key.id)), JSONMember("public_key", .string(key.base64))]
                    + more
            )
        }
        let end = until.map { JSONValue.string(Timestamp.format($0)) } ?? .null
        return JSONValue.object([
            JSONMember("format", .string("persona.keys/1")),
            JSONMember("sequence", .whole(sequence)),
            JSONMember("issued_at", .string("2026-06-01T11:00:00Z")),
            JSONMember("edit_keys", .array(edits.map { entry($0, [JSONMember("until", end)]) })),
            JSONMember("bundle_keys", .array(bundles.map { entry($0) })),
        ]).encoded()
    }

    // MARK: What the phone does

    @Test func aPhoneLearnsANewKeyFromOneThatItTrustsAndTakesItsEdits() async throws {
        let keys = document(1, edits: [newKey], until: Self.end, bundles: [nextPublisher])
        let server = try LocalServer([
            enrolment, signed(edit(1), newKey, keys: 1), signed(keys, publisher),
            signed(edit(2), newKey, keys: 1), signed(edit(3), oldKey, keys: 1),
        ])
        let live = try phone()
        #expect(await live.bundleKeys == publisher.ring)
        #expect(try await outcome(live, server) == "ok")
        #expect(await live.bundleKeys == nextPublisher.ring)
        // What it has it does not ask for again, and what the document leaves out is revoked.
        #expect(try await outcome(live, server) == "ok")
        #expect(try await outcome(live, server) == "edit.unknown_key")
        let asked = server.requests.map { $0.split(separator: " ")[1] }
        #expect(asked.filter { $0.hasPrefix("/v1/keys") } == ["/v1/keys"])
        #expect(await live.status.sequence == 2)
    }

    @Test func whatWasLearnedOutlivesTheProcessAndAnEndedKeyVerifiesNothing() async throws {
        let keys = document(1, edits: [newKey], until: Self.end, bundles: [nextPublisher])
        let server = try LocalServer([
            enrolment, signed(edit(1), newKey, keys: 1), signed(keys, publisher),
        ])
        #expect(try await outcome(try phone(), server) == "ok")

        let restarted = try phone(at: Self.end.addingTimeInterval(-1))
        guard case .edit = await restarted.state else {
            Issue.record("the edit is gone: \(await restarted.state)")
            return
        }
        #expect(await restarted.bundleKeys == nextPublisher.ring)

        let late = try phone(at: Self.end)
        #expect(await late.state == .base)
        #expect(await late.verificationLog.first?.error?.code == "edit.unknown_key")
        let data = edit(2)
        let offered = SignedEdit(data: data, signature: newKey.signature(over: data))
        await #expect { try await late.accept(offered) } throws: {
            ($0 as? FormatError)?.refusal == .editUnknownKey
        }
    }

    @Test func aDocumentByAnUnknownKeyChangesNothing() async throws {
        let keys = document(1, edits: [stranger], bundles: [stranger])
        let server = try LocalServer([
            enrolment, signed(edit(1), oldKey, keys: 1), signed(keys, stranger), noKeys,
            // An edit key names no other.
            signed(edit(2), oldKey, keys: 1), signed(keys, oldKey), noKeys,
            // Nor does a signature over other bytes.
            signed(edit(3), oldKey, keys: 1),
            .init(headers: signed(Data("other".utf8), publisher).headers, bytes: keys),
        ])
        let live = try phone()
        for _ in 1...3 {
            #expect(try await outcome(live, server) == "ok")
            #expect(await live.bundleKeys == publisher.ring)
        }
        let refusals = await live.verificationLog.compactMap { $0.error?.code }
        #expect(refusals == ["keys.bad_signature", "keys.unknown_key", "keys.unknown_key"])
        #expect(LearnedKeys(folder: place.url, pinned: publisher.ring).sequence == 0)
    }

    @Test func documentsBetweenBringTheSignerOfTheNewest() async throws {
        let third = SigningKey()
        let first = document(1, edits: [oldKey], bundles: [nextPublisher])
        let second = document(2, edits: [oldKey], bundles: [third])
        let newest = document(3, edits: [newKey], bundles: [third])
        let server = try LocalServer([
            enrolment, signed(edit(1), newKey, keys: 3), signed(newest, third),
            signed(first, publisher), signed(second, nextPublisher), signed(newest, third), noKeys,
        ])
        let live = try phone()
        #expect(try await outcome(live, server) == "ok")
        let asked = server.requests.dropFirst(2).map { $0.split(separator: " ")[1] }
        #expect(asked == ["/v1/keys", "/v1/keys/1", "/v1/keys/2", "/v1/keys/3", "/v1/keys/4"])
        #expect(await live.bundleKeys == third.ring)
    }

    @Test func aRunningEditWhoseKeyIsRevokedGivesWayToItsPrototype() async throws {
        let keys = document(1, edits: [newKey], bundles: [publisher])
        let server = try LocalServer([
            enrolment, signed(edit(1), oldKey), signed(edit(2), stranger, keys: 1),
            signed(keys, publisher),
        ])
        let live = try phone()
        #expect(try await outcome(live, server) == "ok")
        #expect(try await outcome(live, server) == "edit.unknown_key")
        #expect(await live.state == .prototype(0))
        #expect(await (try phone()).state == .base)
    }

    @Test func anAppWithOtherKeysForgetsWhatWasLearned() throws {
        let keys = document(5, edits: [newKey], bundles: [nextPublisher])
        let signed = SignedKeys(data: keys, signature: publisher.signature(over: keys))
        let learned = LearnedKeys(folder: place.url, pinned: publisher.ring)
        try learned.learn(signed, now: Self.start)
        let again = LearnedKeys(folder: place.url, pinned: publisher.ring)
        #expect(again.sequence == 5 && again.editKeys(at: Self.start) == newKey.ring)
        let other = LearnedKeys(folder: place.url, pinned: stranger.ring)
        #expect(other.sequence == 0 && other.bundleKeys == stranger.ring)
        #expect(other.editKeys(at: Self.start) == nil)
    }

    @Test func aBundleByAKeyThatIsNoLongerTrustedIsNotOpened() throws {
        let folder = Corpus.folder.appending(path: "bundles/complete")
        let pinned = try Corpus.keys("bundles")
        let opening = try ModelBundle.open(at: folder, trusting: pinned)
        #expect(opening.enclosedKeys == pinned)
        let one = try Corpus.json("keys/cases.json").list.first {
            $0.text("name") == "good-signer-gone"
        }!
        let learned = LearnedKeys(folder: place.url, pinned: pinned)
        try learned.learn(
            SignedKeys(
                data: Corpus.data(one.text("file")),
                signature: Signature(keyID: one.text("key_id"), base64: one.text("signature"))
            ), now: Self.start
        )
        let code = try verdict {
            _ = try ModelBundle.open(at: folder, trusting: learned.bundleKeys)
        }
        #expect(code == "bundle.unknown_key")
    }
}
