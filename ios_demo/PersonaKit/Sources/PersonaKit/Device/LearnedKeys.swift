/// Which keys a device trusts: those that app and bundle name, until the cloud's key documents say.
///
/// What was learned lies in one file of the device's folder, that of the reference device in Python.
/// An app that pins other keys than those it was learned with starts again from its own.

import Foundation

/// The keys of one device, in its folder. Owned by one `LiveModel`; an app makes another to open a
/// bundle before it has a model.
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

    /// Trust what a key document says. Throws `FormatError` or `StorageError`, and changes nothing.
    func learn(_ signed: SignedKeys, now: Date) throws {
        let learned = try KeyDocument.verify(
            signed, trusted: bundleKeys, sequence: sequence, now: now
        )
        let stored = JSONValue.object([
            JSONMember("pinned", .array(pinned.ids.map(JSONValue.string))),
            JSONMember("document", .string(String(decoding: signed.data, as: UTF8.self))),
        ])
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

extension ModelBundle {
    /// The key beside the bundle's signature: enough to follow that publisher, not to know who it
    /// is. None where the file does not bring its signer's.
    var enclosedKeys: KeyRing {
        guard let data = try? Data(contentsOf: folder.appending(path: Manifest.signatureName)),
            let stored = StoredSignature(decoding: data), stored.signature.keyID.isExactly(keyID),
            let key = stored.publicKey, let keys = try? KeyRing(publicKeys: [key])
        else { return KeyRing([:]) }
        return keys
    }
}
