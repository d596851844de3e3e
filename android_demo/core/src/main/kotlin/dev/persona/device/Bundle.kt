package dev.persona.device

import dev.persona.formats.Code
import dev.persona.formats.Expectation
import dev.persona.formats.FileDigest
import dev.persona.formats.Golden
import dev.persona.formats.MANIFEST_FILE
import dev.persona.formats.MANIFEST_SIGNATURE_FILE
import dev.persona.formats.Manifest
import dev.persona.formats.PersonaError
import dev.persona.formats.Prototypes
import dev.persona.formats.PublicKeys
import dev.persona.formats.SlotTensors
import dev.persona.formats.checkFiles
import dev.persona.formats.decodeBase
import dev.persona.formats.decodeGolden
import dev.persona.formats.decodePrototypes
import dev.persona.formats.enclosedKey
import dev.persona.formats.fromBase64
import dev.persona.formats.hex
import dev.persona.formats.verifyManifest
import java.io.File
import java.security.MessageDigest

/**
 * A verified bundle in a folder.
 *
 * @property digest names it in edits and observations
 * @property keyId of the key that signed it
 * @property signer the key that signed it, where the bundle brings it
 * @property editKeys the keys that may sign edits for it, until a key document says otherwise
 */
class Bundle
private constructor(
    val folder: File,
    val manifest: Manifest,
    val digest: String,
    val keyId: String,
    val signer: PublicKeys,
    val editKeys: PublicKeys,
    val base: SlotTensors,
    val prototypes: Prototypes,
    val golden: Golden,
) {
    /** What an edit for [device] must be, newer than [sequence]. */
    fun expectation(device: String, sequence: Long) =
        Expectation(
            model = manifest.model,
            bundle = digest,
            device = device,
            sequence = sequence,
            slots = manifest.slots,
            prototypes = manifest.prototypeCount,
            probeShape = golden.base[0].shape,
            maxBytes = manifest.maxEditBytes,
        )

    companion object {
        /**
         * Reads and verifies a bundle: signature, every file, slots, prototypes, golden vectors.
         * Programs are run against the golden vectors by [Device].
         *
         * @param trusted the publisher's keys that the app pins. Null takes the key in
         *   `manifest.sig`, which proves that the files belong together but not who made them
         * @throws PersonaError with a `bundle.*` or `container.*` code
         */
        fun open(folder: File, trusted: PublicKeys?): Bundle {
            val text = read(folder, MANIFEST_FILE)
            val signature = read(folder, MANIFEST_SIGNATURE_FILE)
            val (manifest, keyId) = verifyManifest(text, signature, trusted)
            checkFiles(manifest, digests(folder))
            val (slots, count) = manifest.slots to manifest.prototypeCount
            return Bundle(
                folder = folder,
                manifest = manifest,
                digest = Manifest.digest(text),
                keyId = keyId,
                signer = enclosedKey(signature),
                editKeys = editKeys(manifest),
                base = decodeBase(slots, File(folder, manifest.base).readBytes()),
                prototypes =
                    decodePrototypes(
                        slots,
                        count,
                        manifest.observation.width,
                        File(folder, manifest.prototypes).readBytes(),
                    ),
                golden =
                    decodeGolden(
                        slots,
                        count,
                        manifest.inputs,
                        manifest.outputs[0],
                        manifest.observation,
                        File(folder, manifest.golden).readBytes(),
                    ),
            )
        }

        private fun read(folder: File, name: String): ByteArray {
            val file = File(folder, name)
            if (!file.isFile) {
                throw PersonaError(
                    Code.BUNDLE_FILE_MISSING,
                    "$folder has no $name: expected a bundle folder made by `persona export`",
                )
            }
            return file.readBytes()
        }

        private fun digests(folder: File): Map<String, FileDigest> =
            folder
                .walkTopDown()
                .filter { it.isFile }
                .associateBy { it.relativeTo(folder).invariantSeparatorsPath }
                .filterKeys { it != MANIFEST_FILE && it != MANIFEST_SIGNATURE_FILE }
                .mapValues { digest(it.value) }

        private fun editKeys(manifest: Manifest): PublicKeys =
            try {
                PublicKeys(manifest.editKeys.map { checkNotNull(fromBase64(it.publicKey)) })
            } catch (e: IllegalArgumentException) {
                throw PersonaError(
                    Code.BUNDLE_MANIFEST,
                    "$MANIFEST_FILE: edit_keys: ${e.message}; export the bundle again",
                )
            }
    }
}

/** Size and sha256 of a file, read piece by piece: programs may be large. */
internal fun digest(file: File): FileDigest {
    val sha256 = MessageDigest.getInstance("SHA-256")
    val piece = ByteArray(65_536)
    var size = 0L
    file.inputStream().use { stream ->
        while (true) {
            val read = stream.read(piece)
            if (read < 0) break
            sha256.update(piece, 0, read)
            size += read
        }
    }
    return FileDigest(size, hex(sha256.digest()))
}
