/// The key document `persona.keys/1`: which keys a device trusts from now on.
///
/// Reading is a function of the bytes, their signature, what the device trusts and the time. The
/// rules, in this order; the first that fails gives the code (docs/edit-format.md, "Key document"):
///
///  1. it is not larger than `maxBytes`
///  2. its signature is by a bundle key that the device trusts, over all bytes
///  3. it is strict JSON of a known format, with fields that are well formed
///  4. it is newer than the document that the device has, and not from the future

import Foundation

/// A key that verifies edits; `until`: from then on no more, nil for no end.
struct TrustedEditKey: Sendable, Equatable {
    let key: P256PublicKey
    let until: Date?
}

/// A key document as it came: not yet verified.
public struct SignedKeys: Sendable, Equatable {
    public let data: Data
    public let signature: Signature

    public init(data: Data, signature: Signature) {
        self.data = data
        self.signature = signature
    }
}

/// What a device trusts, in place of what it trusted before.
public struct KeyDocument: Sendable, Equatable {
    public static let format = "persona.keys/1"
    static let maxBytes = 65_536

    /// Grows with each document of a cloud.
    public let sequence: Int64
    public let issuedAt: Date
    let editKeys: [ExactName: TrustedEditKey]
    /// The keys that verify bundles and the next key documents.
    public let bundleKeys: KeyRing

    /// The keys that verify edits at this moment.
    public func editKeys(at now: Date) -> KeyRing {
        KeyRing(
            editKeys.compactMapValues { trusted in
                trusted.until.map { $0 <= now } == true ? nil : trusted.key
            }
        )
    }

    /// The key document in `signed`, if every rule holds. Throws the first that does not.
    ///
    /// `trusted`: the bundle keys that the device trusts. `sequence`: of the document that it has,
    /// or 0.
    public static func verify(
        _ signed: SignedKeys, trusted: KeyRing, sequence: Int64, now: Date
    ) throws(FormatError) -> KeyDocument {
        try checkSize(signed.data)
        try checkSignature(signed, trusted)
        let document = try KeyDocument(decoding: signed.data)
        guard document.sequence > sequence else {
            throw FormatError(
                .keysReplayed,
                "key document \(document.sequence) is not newer than \(sequence), which this "
                    + "device has; keep that"
            )
        }
        guard document.issuedAt.timeIntervalSince(now) <= EditFile.clockSkew else {
            throw FormatError(
                .keysFromFuture,
                "key document issued at \(Timestamp.format(document.issuedAt)), but it is "
                    + "\(Timestamp.format(now)) here; check the clock of the device and of the cloud"
            )
        }
        return document
    }

    private static func checkSize(_ data: Data) throws(FormatError) {
        guard data.count <= maxBytes else {
            throw FormatError(
                .keysTooLarge,
                "the key document has \(data.count) bytes; at most \(maxBytes) are allowed. "
                    + "Check that this is the right cloud"
            )
        }
    }

    private static func checkSignature(
        _ signed: SignedKeys, _ trusted: KeyRing
    ) throws(FormatError) {
        guard trusted.knows(signed.signature.keyID) else {
            throw FormatError(
                .keysUnknownKey,
                "the key document is signed with key '\(signed.signature.keyID)', which is not "
                    + "trusted here; ask for the documents between, or update the app"
            )
        }
        guard trusted.verifies(signed.signature, over: signed.data) else {
            throw FormatError(
                .keysBadSignature,
                "the signature by key '\(signed.signature.keyID)' does not match the key "
                    + "document; ask again"
            )
        }
    }
}

extension KeyDocument {
    /// Read a key document whose signature has been verified.
    init(decoding data: Data) throws(FormatError) {
        let value: JSONValue
        do {
            value = try StrictJSONReader.parse(data)
        } catch {
            throw Self.invalid(error.reason)
        }
        guard case .object = value else { throw Self.invalid("expected an object") }
        guard case .string(let name)? = value["format"], name.isExactly(Self.format) else {
            throw FormatError(
                .keysUnknownFormat,
                "expected format '\(Self.format)', got \(Self.shown(value["format"])); "
                    + "this reader is older or newer than the cloud"
            )
        }
        do {
            try self.init(JSONField(value: value, path: "keys"))
        } catch {
            throw Self.invalid(error.reason)
        }
    }

    private init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object([
            "format", "sequence", "issued_at", "edit_keys", "bundle_keys",
        ])
        sequence = Int64(try object["sequence"].whole(from: 1))
        issuedAt = try object["issued_at"].time()
        editKeys = try object["edit_keys"].byID { field throws(SchemaError) in
            let entry = try field.object(["id", "public_key", "until"])
            let key = try entry.publicKey()
            guard let until = entry.optional("until") else {
                return TrustedEditKey(key: key, until: nil)
            }
            return TrustedEditKey(key: key, until: try until.time())
        }
        let publishers = try object["bundle_keys"].byID { field throws(SchemaError) in
            try field.object(["id", "public_key"]).publicKey()
        }
        guard !publishers.isEmpty else {
            throw object["bundle_keys"].fault("must name a key, else no document could follow")
        }
        if let id = editKeys.keys.sorted().first(where: { publishers[$0] != nil }) {
            throw field.fault("key '\(id)' is both an edit key and a bundle key")
        }
        bundleKeys = KeyRing(publishers)
    }

    private static func invalid(_ reason: String) -> FormatError {
        FormatError(
            .keysInvalid,
            "the key document cannot be read: \(reason). Tell who runs the cloud, and keep what is "
                + "trusted now"
        )
    }

    private static func shown(_ value: JSONValue?) -> String {
        value.map { String(decoding: $0.encoded().prefix(100), as: UTF8.self) } ?? "none"
    }
}

extension JSONField {
    fileprivate func time() throws(SchemaError) -> Date {
        guard let time = Timestamp.parse(try string()) else {
            throw fault("times must be UTC such as 2026-01-31T12:00:00Z")
        }
        return time
    }

    /// The entries of a list by their `id`, which the reading of each has compared with its key.
    fileprivate func byID<Entry>(
        _ read: (JSONField) throws(SchemaError) -> Entry
    ) throws(SchemaError) -> [ExactName: Entry] {
        var entries: [ExactName: Entry] = [:]
        for field in try list() {
            let entry = try read(field)
            guard case .string(let id)? = field.value["id"],
                entries.updateValue(entry, forKey: ExactName(id)) == nil
            else { throw field.fault("this key stands twice") }
        }
        return entries
    }
}

extension JSONObject {
    /// The object's `public_key`, a point of P-256 in its one encoding, with its own `id`.
    fileprivate func publicKey() throws(SchemaError) -> P256PublicKey {
        let id = try self["id"].string()
        guard let der = Base64.decode(try self["public_key"].string()) else {
            throw self["public_key"].fault("expected canonical base64")
        }
        let key: P256PublicKey
        do {
            key = try P256PublicKey(der: der)
        } catch {
            throw self["public_key"].fault(error.message)
        }
        guard KeyRing.id(of: der).isExactly(id) else {
            throw self["id"].fault("the id of this public_key is '\(KeyRing.id(of: der))'")
        }
        return key
    }
}
