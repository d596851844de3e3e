/// Detached ECDSA signatures on P-256: CryptoKit on Apple's systems, OpenSSL on Linux.
///
/// Specified in docs/edit-format.md, "Signature".

import Foundation

#if canImport(CryptoKit)
    import CryptoKit
#else
    import COpenSSL
#endif

/// A detached signature: the key's id and the DER bytes.
public struct Signature: Sendable, Equatable {
    public let keyID: String
    public let der: Data

    public init(keyID: String, der: Data) {
        self.keyID = keyID
        self.der = der
    }

    /// The signature in the headers `Persona-Key-Id` and `Persona-Signature`. Text that is not
    /// canonical base64 becomes the empty signature, which no key verifies: so verification
    /// reports it in its place, after an unknown key.
    public init(keyID: String, base64: String) {
        self.init(keyID: keyID, der: Base64.decode(base64) ?? Data())
    }
}

/// A signature as it lies beside its file: JSON with `key_id` and `signature`.
struct StoredSignature: Equatable {
    let signature: Signature
    /// The signer's, for readers that have pinned no key. It proves only that files belong together.
    let publicKey: Data?

    init(_ signature: Signature) {
        self.signature = signature
        publicKey = nil
    }

    /// nil where the bytes are no stored signature.
    init?(decoding data: Data) {
        guard case .object(let members)? = try? StrictJSONReader.parse(data) else { return nil }
        var fields: [ExactName: String] = [:]
        for member in members {
            guard case .string(let text) = member.value else { return nil }
            fields[member.key] = text
        }
        guard let key = fields["key_id"], let signature = fields["signature"],
            fields.keys.allSatisfy({ ["key_id", "signature", "public_key"].contains($0) })
        else { return nil }
        self.signature = Signature(keyID: key, base64: signature)
        guard let text = fields["public_key"] else {
            publicKey = nil
            return
        }
        guard let enclosed = Base64.decode(text), KeyRing.id(of: enclosed).isExactly(key) else {
            return nil
        }
        publicKey = enclosed
    }

    func encoded() -> Data {
        JSONValue.object([
            JSONMember("key_id", .string(signature.keyID)),
            JSONMember("signature", .string(Base64.encode(signature.der))),
        ]).encoded()
    }
}

/// Base64 in the one spelling that encoding gives: standard alphabet, padding, no white space.
enum Base64 {
    /// nil where the text is not what `encode` gives for the bytes.
    static func decode(_ text: String) -> Data? {
        guard let data = Data(base64Encoded: text), encode(data).isExactly(text) else { return nil }
        return data
    }

    static func encode(_ data: Data) -> String {
        data.base64EncodedString()
    }
}

/// A public key that cannot be used.
public struct PublicKeyError: LocalizedError, Equatable {
    public let message: String
    public var errorDescription: String? { message }
}

/// Public keys by id.
public struct KeyRing: Sendable, Equatable {
    private let keys: [ExactName: P256PublicKey]

    /// `publicKeys`: SubjectPublicKeyInfo in DER with the point uncompressed, 91 bytes each.
    public init(publicKeys: [Data]) throws(PublicKeyError) {
        var keys: [ExactName: P256PublicKey] = [:]
        for der in publicKeys {
            keys[ExactName(Self.id(of: der))] = try P256PublicKey(der: der)
        }
        self.keys = keys
    }

    init(_ keys: [ExactName: P256PublicKey]) {
        self.keys = keys
    }

    /// Of all keys, in order.
    var ids: [String] { keys.keys.sorted().map(\.text) }

    /// The first 16 hex digits of the sha256 of a public key's bytes.
    public static func id(of publicKey: Data) -> String {
        String(sha256(publicKey).prefix(16))
    }

    public func knows(_ id: String) -> Bool {
        keys[ExactName(id)] != nil
    }

    /// Whether it has this very key, in DER.
    public func holds(_ publicKey: Data) -> Bool {
        self[Self.id(of: publicKey)]?.der == publicKey
    }

    subscript(id: String) -> P256PublicKey? { keys[ExactName(id)] }

    /// Whether the signature over `data` is by the key of its id.
    public func verifies(_ signature: Signature, over data: Data) -> Bool {
        keys[ExactName(signature.keyID)]?.verifies(signature.der, over: data) ?? false
    }
}

/// Lower-case hex.
func sha256(_ data: Data) -> String {
    #if canImport(CryptoKit)
        let digest = Array(SHA256.hash(data: data))
    #else
        var digest = [UInt8](repeating: 0, count: 32)
        data.withUnsafeBytes { bytes in
            _ = EVP_Digest(bytes.baseAddress, bytes.count, &digest, nil, EVP_sha256(), nil)
        }
    #endif
    return digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

/// One public key.
struct P256PublicKey: Sendable, Equatable {
    /// What stands before the 64 bytes of x and y: the algorithm, the curve, and that the point is
    /// uncompressed. RFC 5480.
    private static let prefix: [UInt8] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01,
        0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
    ]

    let der: Data

    init(der: Data) throws(PublicKeyError) {
        guard der.count == 91, der.starts(with: Self.prefix), Self.isOnCurve(der) else {
            throw PublicKeyError(
                message: "key \(KeyRing.id(of: der)) is not an ECDSA P-256 public key in DER with "
                    + "its point uncompressed; make keys with `persona`"
            )
        }
        self.der = der
    }

    #if canImport(CryptoKit)
        private static func isOnCurve(_ der: Data) -> Bool {
            (try? P256.Signing.PublicKey(derRepresentation: der)) != nil
        }

        func verifies(_ signature: Data, over data: Data) -> Bool {
            guard let key = try? P256.Signing.PublicKey(derRepresentation: der),
                DERSignature.isStrict(signature),
                let signature = try? P256.Signing.ECDSASignature(derRepresentation: signature)
            else { return false }
            return key.isValidSignature(signature, for: data)
        }
    #else
        private static func isOnCurve(_ der: Data) -> Bool {
            withKey(der) { _ in true } ?? false
        }

        func verifies(_ signature: Data, over data: Data) -> Bool {
            guard DERSignature.isStrict(signature) else { return false }
            return Self.withKey(der) { key in
                let context = EVP_MD_CTX_new()
                defer { EVP_MD_CTX_free(context) }
                guard EVP_DigestVerifyInit(context, nil, EVP_sha256(), nil, key) == 1 else {
                    return false
                }
                return signature.withUnsafeBytes { signature in
                    data.withUnsafeBytes { data in
                        EVP_DigestVerify(
                            context,
                            signature.bindMemory(to: UInt8.self).baseAddress, signature.count,
                            data.bindMemory(to: UInt8.self).baseAddress, data.count
                        ) == 1
                    }
                }
            } ?? false
        }

        /// nil where OpenSSL does not take the key, as when its point is not on the curve.
        private static func withKey<Result>(
            _ der: Data, _ body: (OpaquePointer) -> Result
        ) -> Result? {
            der.withUnsafeBytes { bytes in
                var start = bytes.bindMemory(to: UInt8.self).baseAddress
                guard let key = d2i_PUBKEY(nil, &start, bytes.count) else { return nil }
                defer { EVP_PKEY_free(key) }
                return body(key)
            }
        }
    #endif
}

/// DER of an ECDSA signature: a sequence of two positive integers, each in its shortest form, and
/// nothing after. Libraries differ in what else they take, so the form is looked at here.
enum DERSignature {
    static func isStrict(_ data: Data) -> Bool {
        let bytes = Array(data)
        guard bytes.count >= 8, bytes.count <= 72, bytes[0] == 0x30,
            Int(bytes[1]) == bytes.count - 2
        else { return false }
        var position = 2
        for _ in 0..<2 {
            guard position + 2 <= bytes.count, bytes[position] == 0x02 else { return false }
            let length = Int(bytes[position + 1])
            let first = position + 2
            guard length >= 1, length <= 33, first + length <= bytes.count, bytes[first] < 0x80
            else { return false }
            let padded = bytes[first] == 0 && length > 1
            guard !padded || bytes[first + 1] >= 0x80 else { return false }
            position = first + length
        }
        return position == bytes.count
    }
}
