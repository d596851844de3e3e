package dev.persona.formats

import java.security.PublicKey
import java.util.Base64

/**
 * A detached signature.
 *
 * @property keyId first 16 hex digits of the sha256 of the public key
 * @property der ECDSA P-256 with SHA-256; empty where it came as text that is no canonical base64
 */
class DetachedSignature(val keyId: String, val der: ByteArray) {
    /** As it is stored beside its file. */
    fun encode(): ByteArray =
        jsonObject("key_id" to JsonString(keyId), "signature" to JsonString(toBase64(der)))
            .write()
            .plus("\n")
            .toByteArray()

    companion object {
        /**
         * The signature in the headers `Persona-Key-Id` and `Persona-Signature`. Text that is not
         * canonical base64 becomes the empty signature, which no key verifies: so verification
         * reports it in its place, after an unknown key.
         */
        fun ofHeaders(keyId: String, base64: String) =
            DetachedSignature(keyId, fromBase64(base64) ?: ByteArray(0))
    }
}

/** Public keys by id: SubjectPublicKeyInfo in DER with the point uncompressed, 91 bytes. */
class PublicKeys(keys: Iterable<ByteArray>) {
    private val byId: Map<String, PublicKey> =
        keys.associate { der ->
            keyId(der) to
                requireNotNull(Ecdsa.publicKey(der)) {
                    "key ${keyId(der)} is not an ECDSA P-256 public key in DER with its point " +
                        "uncompressed"
                }
        }

    /** The keys' ids. */
    val ids: Set<String>
        get() = byId.keys

    /** Whether there is a key with this id. */
    fun knows(keyId: String): Boolean = keyId in byId

    /** Whether the signature over [data] is by the key with its id. */
    fun verifies(signature: DetachedSignature, data: ByteArray): Boolean =
        byId[signature.keyId]?.let { Ecdsa.verifies(it, signature.der, data) } ?: false

    companion object {
        /** First 16 hex digits of the sha256 of the public key. */
        fun keyId(der: ByteArray): String = sha256(der).take(16)
    }
}

/**
 * A signature as it lies beside its file.
 *
 * @property publicKey the signer's, in DER, for readers that have pinned no key. It proves only
 *   that signature and file belong together
 */
internal class StoredSignature(val signature: DetachedSignature, val publicKey: ByteArray?) {
    companion object {
        /** Reads one; null where the bytes are none, or its public key is not that of its id. */
        fun decode(data: ByteArray): StoredSignature? =
            try {
                parseJson(data).fields("signature") {
                    val keyId = string("key_id")
                    val signature = DetachedSignature.ofHeaders(keyId, string("signature"))
                    if ("public_key" !in this) {
                        StoredSignature(signature, null)
                    } else {
                        val key = fromBase64(string("public_key"))
                        if (key == null || PublicKeys.keyId(key) != keyId) {
                            throw SchemaException("public_key is not the key with this id")
                        }
                        StoredSignature(signature, key)
                    }
                }
            } catch (_: JsonException) {
                null
            } catch (_: SchemaException) {
                null
            }
    }
}

internal fun toBase64(data: ByteArray): String = Base64.getEncoder().encodeToString(data)

/** The bytes in canonical base64: encoding them gives the same text. Null for any other text. */
internal fun fromBase64(text: String): ByteArray? {
    val data =
        try {
            Base64.getDecoder().decode(text)
        } catch (_: IllegalArgumentException) {
            return null
        }
    return data.takeIf { toBase64(it) == text }
}
