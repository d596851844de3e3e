package dev.persona.formats

import java.time.Instant

/** The `format` of a key document, and its media type in HTTP. */
const val KEYS_FORMAT = "persona.keys/1"
const val KEYS_MEDIA_TYPE = "application/vnd.persona.keys+json"

/** The largest key document. */
const val MAX_KEYS_BYTES = 65_536L

/**
 * A key that verifies edits.
 *
 * @property publicKey SubjectPublicKeyInfo in DER
 * @property until from then on it verifies nothing; null for no end
 */
class TrustedEditKey(val publicKey: ByteArray, val until: Instant?)

/**
 * Which keys a device trusts from now on, in place of those that it trusted before.
 *
 * @property sequence grows with each document of a cloud
 * @property editKeys by key id
 * @property bundleKeys by key id: public keys that verify bundles and the next key documents
 */
class KeyDocument
internal constructor(
    val sequence: Long,
    val issuedAt: Instant,
    val editKeys: Map<String, TrustedEditKey>,
    val bundleKeys: Map<String, ByteArray>,
) {
    /** The keys that verify edits at this moment. */
    fun editKeysAt(now: Instant): PublicKeys =
        PublicKeys(
            editKeys.values.filter { it.until == null || now < it.until }.map { it.publicKey }
        )
}

/**
 * The key document in [data], if every rule of `docs/edit-format.md`, "Verifying a key document",
 * holds. A pure function.
 *
 * @param trusted the bundle keys that the device trusts
 * @param sequence of the document that the device has; 0 without one
 * @throws PersonaError with the code of the first rule that fails
 */
fun verifyKeys(
    data: ByteArray,
    signature: DetachedSignature,
    trusted: PublicKeys,
    sequence: Long,
    now: Instant,
): KeyDocument {
    if (data.size > MAX_KEYS_BYTES) {
        throw PersonaError(
            Code.KEYS_TOO_LARGE,
            "the key document has ${data.size} bytes or more; at most $MAX_KEYS_BYTES are " +
                "allowed. Check that this is the right cloud",
        )
    }
    if (!trusted.knows(signature.keyId)) {
        throw PersonaError(
            Code.KEYS_UNKNOWN_KEY,
            "the key document is signed with key \"${signature.keyId}\", which is not trusted " +
                "here; ask for the documents between, or update the app",
        )
    }
    if (!trusted.verifies(signature, data)) {
        throw PersonaError(
            Code.KEYS_BAD_SIGNATURE,
            "the signature by key \"${signature.keyId}\" does not match the key document; " +
                "ask again",
        )
    }
    val document = decodeKeys(data)
    if (document.sequence <= sequence) {
        throw PersonaError(
            Code.KEYS_REPLAYED,
            "key document ${document.sequence} is not newer than $sequence, which this device " +
                "has; keep that",
        )
    }
    if (document.issuedAt > now + CLOCK_SKEW) {
        throw PersonaError(
            Code.KEYS_FROM_FUTURE,
            "key document issued at ${formatTime(document.issuedAt)}, but it is " +
                "${formatTime(now)} here; check the clock of the device and of the cloud",
        )
    }
    return document
}

/** Reads a key document whose signature has been verified. Throws [PersonaError]. */
internal fun decodeKeys(data: ByteArray): KeyDocument =
    try {
        val value = parseJson(data)
        val format = (value as? JsonObject)?.let { (it["format"] as? JsonString)?.value }
        if (value is JsonObject && format != KEYS_FORMAT) {
            throw PersonaError(
                Code.KEYS_UNKNOWN_FORMAT,
                "expected format \"$KEYS_FORMAT\", got \"${format?.take(100) ?: "none"}\"; " +
                    "this reader is older or newer than the cloud",
            )
        }
        readKeys(value)
    } catch (e: JsonException) {
        throw invalid(e)
    } catch (e: SchemaException) {
        throw invalid(e)
    }

private fun invalid(fault: Exception) =
    PersonaError(
        Code.KEYS_INVALID,
        "the key document cannot be read: ${fault.message}. Tell who runs the cloud, and keep " +
            "what is trusted now",
    )

private fun readKeys(value: JsonValue): KeyDocument =
    value.fields("keys") {
        string("format")
        val sequence = whole("sequence")
        if (sequence < 1) throw SchemaException("keys.sequence: expected 1 or more, got $sequence")
        val issuedAt = get("issued_at").asTime("keys.issued_at")
        val editKeys = byId(list("edit_keys", ::readEditKey), "keys.edit_keys")
        val bundleKeys = byId(list("bundle_keys", ::readBundleKey), "keys.bundle_keys")
        if (bundleKeys.isEmpty()) {
            throw SchemaException("keys.bundle_keys: expected a key, else no document could follow")
        }
        editKeys.keys
            .firstOrNull { it in bundleKeys }
            ?.let { throw SchemaException("keys: \"$it\" is both an edit key and a bundle key") }
        KeyDocument(sequence, issuedAt, editKeys, bundleKeys)
    }

private fun readEditKey(value: JsonValue, path: String): Pair<String, TrustedEditKey> =
    value.fields(path) {
        val (id, publicKey) = publicKey(path)
        id to TrustedEditKey(publicKey, nullable("until", JsonValue::asTime))
    }

private fun readBundleKey(value: JsonValue, path: String): Pair<String, ByteArray> =
    value.fields(path) { publicKey(path) }

/** The id and the key itself: a point of P-256 in its one encoding, with its own id. */
private fun JsonFields.publicKey(path: String): Pair<String, ByteArray> {
    val id = string("id")
    val der =
        fromBase64(string("public_key"))
            ?: throw SchemaException("$path.public_key: not canonical base64")
    if (Ecdsa.publicKey(der) == null) {
        throw SchemaException(
            "$path.public_key: not an ECDSA P-256 public key in DER with its point uncompressed"
        )
    }
    val itsOwn = PublicKeys.keyId(der)
    if (id != itsOwn) {
        throw SchemaException("$path.id: that of this public_key is \"$itsOwn\", got \"$id\"")
    }
    return id to der
}

private fun <T> byId(keys: List<Pair<String, T>>, path: String): Map<String, T> {
    val found = LinkedHashMap<String, T>()
    for ((id, key) in keys) {
        if (id in found) throw SchemaException("$path: key \"$id\" stands twice")
        found[id] = key
    }
    return found
}

private fun JsonValue.asTime(path: String): Instant {
    val text = asString(path)
    return parseTime(text)
        ?: throw SchemaException(
            "$path: \"$text\" is not a UTC time such as 2026-01-31T12:00:00Z"
        )
}
