import Foundation

@testable import PersonaKit

#if canImport(CryptoKit)
    import CryptoKit
#else
    import COpenSSL
#endif

/// A new P-256 key pair that signs as a cloud or a publisher does.
final class SigningKey {
    /// SubjectPublicKeyInfo in DER.
    let publicKey: Data
    var id: String { KeyRing.id(of: publicKey) }
    var base64: String { Base64.encode(publicKey) }

    /// With this key alone.
    var ring: KeyRing { try! KeyRing(publicKeys: [publicKey]) }

    func signature(over data: Data) -> Signature { Signature(keyID: id, der: sign(data)) }

    #if canImport(CryptoKit)
        private let key = P256.Signing.PrivateKey()

        init() {
            publicKey = key.publicKey.derRepresentation
        }

        private func sign(_ data: Data) -> Data {
            try! key.signature(for: data).derRepresentation
        }
    #else
        private let key: OpaquePointer

        init() {
            let context = EVP_PKEY_CTX_new_from_name(nil, "EC", nil)
            defer { EVP_PKEY_CTX_free(context) }
            var made: OpaquePointer?
            EVP_PKEY_keygen_init(context)
            EVP_PKEY_CTX_set_group_name(context, "P-256")
            EVP_PKEY_generate(context, &made)
            key = made!
            var der = [UInt8](repeating: 0, count: Int(i2d_PUBKEY(key, nil)))
            der.withUnsafeMutableBufferPointer { buffer in
                var end = buffer.baseAddress
                _ = i2d_PUBKEY(made, &end)
            }
            publicKey = Data(der)
        }

        private func sign(_ data: Data) -> Data {
            let context = EVP_MD_CTX_new()
            defer { EVP_MD_CTX_free(context) }
            let bytes = Array(data)
            var signature = [UInt8](repeating: 0, count: 72)
            var count = signature.count
            EVP_DigestSignInit(context, nil, EVP_sha256(), nil, key)
            EVP_DigestSign(context, &signature, &count, bytes, bytes.count)
            return Data(signature.prefix(count))
        }

        deinit {
            EVP_PKEY_free(key)
        }
    #endif
}
