import Foundation
import Testing

@testable import PersonaKit

/// A cloud that goes on to other keys than the phone's.
struct LearnedKeysTests {
    private static let start = PhoneAndCloud.start
    private static let end = Timestamp.parse("2026-06-03T12:00:00Z")!

    private let given: PhoneAndCloud
    private let nextPublisher = SigningKey()
    private let newKey = SigningKey()
    private let stranger = SigningKey()

    init() throws {
        given = try PhoneAndCloud()
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
            .enrolment, .edit(1, newKey, keys: 1), .signed(keys, given.publisher),
            .edit(2, newKey, keys: 1), .edit(3, given.editKey, keys: 1),
        ])
        let live = try given.phone()
        #expect(await live.bundleKeys == given.publisher.ring)
        #expect(try await given.outcome(live, server) == "ok")
        #expect(await live.bundleKeys == nextPublisher.ring)
        // What it has it does not ask for again, and what the document leaves out is revoked.
        #expect(try await given.outcome(live, server) == "ok")
        #expect(try await given.outcome(live, server) == "edit.unknown_key")
        let asked = server.requests.map { $0.split(separator: " ")[1] }
        #expect(asked.filter { $0.hasPrefix("/v1/keys") } == ["/v1/keys"])
        #expect(await live.status.sequence == 2)
    }

    @Test func whatWasLearnedOutlivesTheProcessAndAnEndedKeyVerifiesNothing() async throws {
        let keys = document(1, edits: [newKey], until: Self.end, bundles: [nextPublisher])
        let server = try LocalServer([
            .enrolment, .edit(1, newKey, keys: 1), .signed(keys, given.publisher),
        ])
        #expect(try await given.outcome(try given.phone(), server) == "ok")

        let restarted = try given.phone(at: Self.end.addingTimeInterval(-1))
        guard case .edit = await restarted.state else {
            Issue.record("the edit is gone: \(await restarted.state)")
            return
        }
        #expect(await restarted.bundleKeys == nextPublisher.ring)

        let late = try given.phone(at: Self.end)
        #expect(await late.state == .base)
        #expect(await late.verificationLog.first?.error?.code == "edit.unknown_key")
        let data = PhoneAndCloud.edit(2)
        let offered = SignedEdit(data: data, signature: newKey.signature(over: data))
        await #expect { try await late.accept(offered) } throws: {
            ($0 as? FormatError)?.refusal == .editUnknownKey
        }
    }

    @Test func aDocumentByAnUnknownKeyChangesNothing() async throws {
        let keys = document(1, edits: [stranger], bundles: [stranger])
        let other = LocalServer.Answer.signed(Data("other".utf8), given.publisher)
        let server = try LocalServer([
            .enrolment, .edit(1, given.editKey, keys: 1), .signed(keys, stranger), .noKeys,
            // An edit key names no other.
            .edit(2, given.editKey, keys: 1), .signed(keys, given.editKey), .noKeys,
            // Nor does a signature over other bytes.
            .edit(3, given.editKey, keys: 1),
            .init(headers: other.headers, bytes: keys),
        ])
        let live = try given.phone()
        for _ in 1...3 {
            #expect(try await given.outcome(live, server) == "ok")
            #expect(await live.bundleKeys == given.publisher.ring)
        }
        let refusals = await live.verificationLog.compactMap { $0.error?.code }
        #expect(refusals == ["keys.bad_signature", "keys.unknown_key", "keys.unknown_key"])
        #expect(LearnedKeys(folder: given.place.url, pinned: given.publisher.ring).sequence == 0)
    }

    @Test func documentsBetweenBringTheSignerOfTheNewest() async throws {
        let third = SigningKey()
        let first = document(1, edits: [given.editKey], bundles: [nextPublisher])
        let second = document(2, edits: [given.editKey], bundles: [third])
        let newest = document(3, edits: [newKey], bundles: [third])
        let server = try LocalServer([
            .enrolment, .edit(1, newKey, keys: 3), .signed(newest, third),
            .signed(first, given.publisher), .signed(second, nextPublisher),
            .signed(newest, third), .noKeys,
        ])
        let live = try given.phone()
        #expect(try await given.outcome(live, server) == "ok")
        let asked = server.requests.dropFirst(2).map { $0.split(separator: " ")[1] }
        #expect(asked == ["/v1/keys", "/v1/keys/1", "/v1/keys/2", "/v1/keys/3", "/v1/keys/4"])
        #expect(await live.bundleKeys == third.ring)
    }

    @Test func aRunningEditWhoseKeyIsRevokedGivesWayToItsPrototype() async throws {
        let keys = document(1, edits: [newKey], bundles: [given.publisher])
        let server = try LocalServer([
            .enrolment, .edit(1, given.editKey), .edit(2, stranger, keys: 1),
            .signed(keys, given.publisher),
        ])
        let live = try given.phone()
        #expect(try await given.outcome(live, server) == "ok")
        #expect(try await given.outcome(live, server) == "edit.unknown_key")
        #expect(await live.state == .prototype(0))
        #expect(await (try given.phone()).state == .base)
    }

    @Test func anAppWithOtherKeysForgetsWhatWasLearned() throws {
        let keys = document(5, edits: [newKey], bundles: [nextPublisher])
        let signed = SignedKeys(data: keys, signature: given.publisher.signature(over: keys))
        let learned = LearnedKeys(folder: given.place.url, pinned: given.publisher.ring)
        try learned.learn(signed, now: Self.start)
        let again = LearnedKeys(folder: given.place.url, pinned: given.publisher.ring)
        #expect(again.sequence == 5 && again.editKeys(at: Self.start) == newKey.ring)
        let other = LearnedKeys(folder: given.place.url, pinned: stranger.ring)
        #expect(other.sequence == 0 && other.bundleKeys == stranger.ring)
        #expect(other.editKeys(at: Self.start) == nil)
    }

    // MARK: Before there is a model

    @Test func aPhoneWithoutAModelLearnsWhoSignsBundlesNow() async throws {
        let newest = document(1, edits: [newKey], bundles: [given.publisher, nextPublisher])
        let server = try LocalServer([.signed(newest, given.publisher), .noKeys])
        let cloud = try CloudClient(url: server.url)
        try FileManager.default.removeItem(at: given.place.url)
        let learned = LearnedKeys(folder: given.place.url, pinned: given.publisher.ring)
        #expect(!learned.bundleKeys.holds(nextPublisher.publicKey))
        try await learned.catchUp(with: cloud, now: Self.start)
        #expect(learned.bundleKeys.holds(nextPublisher.publicKey))
        // A cloud without documents changes nothing; a model starts with what was learned.
        try await learned.catchUp(with: cloud, now: Self.start)
        #expect(await (try given.phone()).bundleKeys == learned.bundleKeys)
    }

    @Test func aDocumentThatIsNotNewerIsRefusedAndWhatWasLearnedStays() async throws {
        let second = document(2, edits: [newKey], bundles: [given.publisher])
        let first = document(1, edits: [newKey], bundles: [given.publisher, stranger])
        let answers = [second, second, first].map { LocalServer.Answer.signed($0, given.publisher) }
        let cloud = try CloudClient(url: LocalServer(answers).url)
        let learned = LearnedKeys(folder: given.place.url, pinned: given.publisher.ring)
        try await learned.catchUp(with: cloud, now: Self.start)
        for _ in 1...2 {
            await #expect { try await learned.catchUp(with: cloud, now: Self.start) } throws: {
                ($0 as? FormatError)?.refusal == .keysReplayed
            }
        }
        #expect(learned.sequence == 2 && learned.bundleKeys == given.publisher.ring)
    }

    @Test func aKeyThatIsKnownByItsIdIsFoundInTheNewestOrTheFirstDocument() async throws {
        let first = document(1, edits: [], bundles: [given.publisher])
        let newest = document(7, edits: [], bundles: [nextPublisher])
        // Both by a stranger: nothing but its id speaks for the key.
        let server = try LocalServer([
            .signed(newest, stranger), .signed(newest, stranger), .signed(first, stranger),
            .signed(newest, stranger), .noKeys, .noKeys,
        ])
        let cloud = try CloudClient(url: server.url)
        #expect(try await cloud.bundleKey(nextPublisher.id) == nextPublisher.publicKey)
        #expect(try await cloud.bundleKey(given.publisher.id) == given.publisher.publicKey)
        #expect(try await cloud.bundleKey(stranger.id) == nil)
        #expect(try await cloud.bundleKey(stranger.id) == nil)
        let asked = server.requests.map { $0.split(separator: " ")[1] }
        #expect(
            asked == [
                "/v1/keys", "/v1/keys", "/v1/keys/1", "/v1/keys", "/v1/keys/1", "/v1/keys",
            ]
        )
    }

    @Test func aBundleByAKeyThatIsNoLongerTrustedIsNotOpened() throws {
        let folder = Corpus.folder.appending(path: "bundles/complete")
        let pinned = try Corpus.keys("bundles")
        let opening = try ModelBundle.open(at: folder, trusting: pinned)
        #expect(opening.signerKeys == pinned)
        let one = try Corpus.json("keys/cases.json").list.first {
            $0.text("name") == "good-signer-gone"
        }!
        let learned = LearnedKeys(folder: given.place.url, pinned: pinned)
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
