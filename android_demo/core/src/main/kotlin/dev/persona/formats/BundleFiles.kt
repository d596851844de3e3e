package dev.persona.formats

/**
 * Checks `manifest.sig` and the signature over `manifest.json`, then reads the manifest.
 *
 * @param trusted the publisher's keys that the app pins. Null takes the key in `manifest.sig`,
 *   which proves that the files belong together but not who made them
 * @return the manifest and the id of the key that signed it
 * @throws PersonaError with a `bundle.*` code
 */
fun verifyManifest(
    manifest: ByteArray,
    storedSignature: ByteArray,
    trusted: PublicKeys?,
): Pair<Manifest, String> {
    val stored =
        StoredSignature.decode(storedSignature)
            ?: throw PersonaError(
                Code.BUNDLE_SIGNATURE,
                "$MANIFEST_SIGNATURE_FILE is not a stored signature; copy the bundle again",
            )
    val signature = stored.signature
    val keys = trusted ?: enclosedKey(stored)
    return verifyManifest(manifest, signature, keys) to signature.keyId
}

/** The signer's key, where the file brings it; none where it does not. Throws [PersonaError]. */
internal fun enclosedKey(storedSignature: ByteArray): PublicKeys =
    StoredSignature.decode(storedSignature)?.let { enclosedKey(it) } ?: PublicKeys(emptyList())

private fun enclosedKey(stored: StoredSignature): PublicKeys =
    try {
        PublicKeys(listOfNotNull(stored.publicKey))
    } catch (e: IllegalArgumentException) {
        throw PersonaError(
            Code.BUNDLE_SIGNATURE,
            "$MANIFEST_SIGNATURE_FILE: ${e.message}; copy the bundle again",
        )
    }

/** Checks the signature over `manifest.json`, then reads it. Throws [PersonaError]. */
fun verifyManifest(data: ByteArray, signature: DetachedSignature, keys: PublicKeys): Manifest {
    if (!keys.knows(signature.keyId)) {
        throw PersonaError(
            Code.BUNDLE_UNKNOWN_KEY,
            "the bundle is signed with key \"${signature.keyId}\", which is not trusted here; " +
                "pin its publisher's key, or take a bundle of a publisher that is",
        )
    }
    if (!keys.verifies(signature, data)) {
        throw PersonaError(
            Code.BUNDLE_SIGNATURE,
            "the signature by key \"${signature.keyId}\" does not match $MANIFEST_FILE; " +
                "copy the bundle again",
        )
    }
    return Manifest.decode(data)
}

/** Compares the bundle's files (all but manifest and signature) with the manifest. */
fun checkFiles(manifest: Manifest, found: Map<String, FileDigest>) {
    val missing = manifest.files.keys - found.keys
    if (missing.isNotEmpty()) {
        throw PersonaError(
            Code.BUNDLE_FILE_MISSING,
            "${missing.sorted().joinToString()} is missing; copy or export the bundle again",
        )
    }
    for ((path, wanted) in manifest.files) {
        val got = found.getValue(path)
        if (got != wanted) {
            throw PersonaError(
                Code.BUNDLE_FILE_CHANGED,
                "$path must have ${wanted.size} bytes with sha256 ${wanted.sha256.take(12)}…, got " +
                    "${got.size} with ${got.sha256.take(12)}…; copy the bundle again",
            )
        }
    }
    val unlisted = found.keys - manifest.files.keys
    if (unlisted.isNotEmpty()) {
        throw PersonaError(
            Code.BUNDLE_FILE_UNLISTED,
            "${unlisted.sorted().joinToString()} is not in the manifest; remove it, or export again",
        )
    }
}
