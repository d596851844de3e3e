/// Which keys a device trusts: those that app and bundle name, until the cloud's key documents say.
///
/// What was learned lies in one file of the device's folder, that of the reference device in Python.
/// An app that pins other keys than those it was learned with starts again from its own.

import Foundation

/// The keys of one device, in its folder. Owned by one `LiveModel`; an app makes another to open a
/// bundle, and to learn who signs it, before it has a model.
public final class LearnedKeys {
    static let fileName = "keys.json"

    private let file: URL
    private let pinned: KeyRing
    private var document: KeyDocument?

    /// `pinned`: the bundle keys that the app names. What cannot be read is as if never learned.
    public init(folder: URL, pinned: KeyRing) {
        file = folder.appending(path: Self.fileName)
        self.pinned = pinned
        document = (try? Data(contentsOf: file)).flatMap { Self.document(in: $0, pinned: pinned) }
    }

    /// Of the newest key document; 0 where none was learned.
    public var sequence: Int64 { document?.sequence ?? 0 }

    /// The keys that verify bundles and key documents.
    public var bundleKeys: KeyRing { document?.bundleKeys ?? pinned }

    /// The keys that verify edits; nil where no document was learned, so those of the bundle do.
    public func editKeys(at now: Date) -> KeyRing? {
        document?.editKeys(at: now)
    }

    /// Trust what the cloud's newest key document says; where its signer is not known, learn it
    /// through the documents before. Those that were learned stay, whatever becomes of the next.
    ///
    /// Throws `FormatError` `keys.*` for a document that does not hold, also for one that is not
    /// newer, `CloudError` where none can be had, `StorageError` where it cannot be kept.
    public func catchUp(
        with cloud: CloudClient, now: Date, isolation: isolated (any Actor)? = #isolation
    ) async throws {
        guard let newest = try await cloud.keys() else { return }
        let before = sequence
        do {
            try learn(newest, now: now)
        } catch let error as FormatError where error.refusal == .keysUnknownKey {
            while let following = try await cloud.keys(sequence + 1) {
                try learn(following, now: now)
            }
            if sequence == before { throw error }
        }
    }

    /// Trust what a key document says. Throws `FormatError` or `StorageError`, and changes nothing.
    func learn(_ signed: SignedKeys, now: Date) throws {
        let learned = try KeyDocument.verify(
            signed, trusted: bundleKeys, sequence: sequence, now: now
        )
        let stored = JSONValue.object([
            JSONMember("pinned", .array(pinned.ids.map(JSONValue.string))),
            JSONMember("document", .string(String(decoding: signed.data, as: UTF8.self))),
        ])
        // An app may learn before a model has made the folder. Where this fails, writing says so.
        try? FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true
        )
        try DurableFile.write(stored.encoded(), to: file)
        document = learned
    }

    /// nil where the bytes hold no document, or one that was learned with other keys.
    private static func document(in data: Data, pinned: KeyRing) -> KeyDocument? {
        guard let stored = try? StrictJSONReader.parse(data),
            stored["pinned"] == .array(pinned.ids.map(JSONValue.string)),
            case .string(let text)? = stored["document"]
        else { return nil }
        return try? KeyDocument(decoding: Data(text.utf8))
    }
}

extension CloudClient {
    /// The public key with this id, where the cloud's newest key document or its first names it; a
    /// device that has none can go on from no other.
    ///
    /// The document is not verified: for the key speaks only that its id is the one asked for.
    public func bundleKey(_ id: String) async throws(CloudError) -> Data? {
        for sequence: Int64? in [nil, 1] {
            guard let came = try await keys(sequence) else { return nil }
            let document = try? KeyDocument(decoding: came.data)
            if let key = document?.bundleKeys[id] { return key.der }
        }
        return nil
    }
}
