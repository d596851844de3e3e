package dev.persona.device

import dev.persona.formats.Code
import dev.persona.formats.FileDigest
import dev.persona.formats.MANIFEST_FILE
import dev.persona.formats.MANIFEST_SIGNATURE_FILE
import dev.persona.formats.Manifest
import dev.persona.formats.PersonaError
import dev.persona.formats.PublicKeys
import dev.persona.formats.verifyManifest
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.time.Instant

/**
 * Fetches a model's bundle into a folder of its own below [folder], named by its digest. What was
 * fetched before an interruption is kept and gone on with; nothing is used before all of it is
 * verified.
 *
 * A bundle by a key that is not trusted sends for the cloud's key documents, which may name it: so a
 * phone that first meets its cloud after the publisher's key changed comes to trust the new one.
 *
 * @param keys what this phone trusts and learns. Null takes the key that the bundle brings, as
 *   [Bundle.open] does
 */
class BundleDownload(
    private val cloud: CloudClient,
    private val folder: File,
    private val keys: LearnedKeys?,
    private val clock: () -> Instant = Instant::now,
) {
    private val trusted: PublicKeys?
        get() = keys?.bundleKeys

    /**
     * The cloud's bundle of [model], fetched unless it is here already.
     *
     * @param publisher id of the key that must have signed it; null for any that is trusted
     * @param progress bytes that are here and all bytes, called as they come
     * @throws PersonaError where the bundle is not as its publisher signed it, [OfflineException]
     *   or [CloudError] where it cannot be fetched, [StorageException] where it cannot be kept
     */
    fun fetch(
        model: String,
        publisher: String? = null,
        progress: (here: Long, all: Long) -> Unit,
    ): Bundle {
        val text = cloud.bundleFile(model, MANIFEST_FILE)
        val signature = cloud.bundleFile(model, MANIFEST_SIGNATURE_FILE)
        val (manifest, keyId) = verified(text, signature)
        if (publisher != null && keyId != publisher) {
            throw PersonaError(
                Code.BUNDLE_UNKNOWN_KEY,
                "the bundle is signed with key \"$keyId\", not with \"$publisher\", which this " +
                    "cloud's link names; scan the code that the cloud shows now",
            )
        }
        val ready = File(folder, Manifest.digest(text))
        if (ready.isDirectory) {
            renewSignature(ready, signature)
        } else {
            val partial = File(folder, "${ready.name}.partial")
            fetchFiles(model, manifest, partial, progress)
            write(File(partial, MANIFEST_FILE), text)
            write(File(partial, MANIFEST_SIGNATURE_FILE), signature)
            Bundle.open(partial, trusted)
            rename(partial, ready)
        }
        return Bundle.open(ready, trusted)
    }

    private fun verified(text: ByteArray, signature: ByteArray): Pair<Manifest, String> =
        try {
            verifyManifest(text, signature, trusted)
        } catch (e: PersonaError) {
            if (keys == null || e.code != Code.BUNDLE_UNKNOWN_KEY) throw e
            learn(keys)
            verifyManifest(text, signature, trusted)
        }

    /** As far as documents can be had and hold; then the bundle's own verdict says what is wrong. */
    private fun learn(keys: LearnedKeys) {
        try {
            keys.catchUp(cloud, clock())
        } catch (_: PersonaError) {
            return
        } catch (_: CloudError) {
            return
        }
    }

    private fun fetchFiles(
        model: String,
        manifest: Manifest,
        partial: File,
        progress: (here: Long, all: Long) -> Unit,
    ) {
        val all = manifest.files.values.sumOf { it.size }
        var before = 0L
        for ((path, wanted) in manifest.files) {
            val file = File(partial, path)
            file.parentFile.mkdirs() // where that fails, opening the file says so
            if (!file.exists() || digest(file) != wanted) {
                fetchFile(model, path, wanted, file) { progress(before + it, all) }
            }
            before += wanted.size
            progress(before, all)
        }
    }

    private fun fetchFile(
        model: String,
        path: String,
        wanted: FileDigest,
        file: File,
        progress: (Long) -> Unit,
    ) {
        if (file.length() >= wanted.size) file.delete()
        cloud.bundleFile(model, path, wanted.sha256, file::length) { answer ->
            val goesOn = answer.status == PARTIAL_CONTENT
            write(file, goesOn) { out ->
                val piece = ByteArray(65_536)
                while (file.length() <= wanted.size) {
                    val read = answer.body.read(piece)
                    if (read < 0) break
                    out(piece, read)
                    progress(file.length())
                }
            }
        }
        val got = digest(file)
        if (got != wanted) {
            file.delete()
            throw PersonaError(
                Code.BUNDLE_FILE_CHANGED,
                "$path came with ${got.size} bytes and sha256 ${got.sha256.take(12)}…, the " +
                    "manifest says ${wanted.size} and ${wanted.sha256.take(12)}…; fetch the bundle again",
            )
        }
    }

    /** The publisher may have signed the same bundle anew, with a newer key. */
    private fun renewSignature(ready: File, signature: ByteArray) {
        val stored = File(ready, MANIFEST_SIGNATURE_FILE)
        if (stored.readBytes().contentEquals(signature)) return
        // Not beside it: a bundle's folder holds nothing that its manifest does not name.
        val written = File(folder, "${ready.name}.sig")
        write(written, signature)
        rename(written, stored)
    }

    private fun rename(from: File, to: File) {
        if (!from.renameTo(to)) {
            throw StorageException("cannot make $to", IOException("rename failed"))
        }
    }

    private fun write(file: File, data: ByteArray) =
        write(file, append = false) { out -> out(data, data.size) }

    /** Faults of the disk become [StorageException]s; those of [body] itself stay what they are. */
    private fun write(file: File, append: Boolean, body: ((ByteArray, Int) -> Unit) -> Unit) {
        fun <T> onDisk(action: () -> T): T =
            try {
                action()
            } catch (e: IOException) {
                throw StorageException("cannot write $file: ${e.message}; free some space", e)
            }

        onDisk { FileOutputStream(file, append) }
            .use { out ->
                body { piece, length -> onDisk { out.write(piece, 0, length) } }
                onDisk { out.fd.sync() }
            }
    }

    private companion object {
        const val PARTIAL_CONTENT = 206
    }
}
