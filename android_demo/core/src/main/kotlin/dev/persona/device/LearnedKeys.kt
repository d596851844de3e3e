package dev.persona.device

import dev.persona.formats.Code
import dev.persona.formats.JsonArray
import dev.persona.formats.JsonException
import dev.persona.formats.JsonString
import dev.persona.formats.JsonValue
import dev.persona.formats.KeyDocument
import dev.persona.formats.PersonaError
import dev.persona.formats.PublicKeys
import dev.persona.formats.SchemaException
import dev.persona.formats.asString
import dev.persona.formats.decodeKeys
import dev.persona.formats.fields
import dev.persona.formats.jsonObject
import dev.persona.formats.parseJson
import dev.persona.formats.verifyKeys
import dev.persona.formats.write
import java.io.File
import java.io.IOException
import java.time.Instant

/**
 * Which keys a device trusts: those that app and bundle name, until the cloud's key documents say.
 *
 * What was learned lies in one file of the device's folder, whole or not at all. An app that pins
 * other keys than those it was learned with starts again from its own.
 */
class LearnedKeys
internal constructor(
    folder: File,
    private val pinned: PublicKeys,
    private val files: DurableFiles,
) {
    /**
     * @param folder the device's, as [Device] has it
     * @param pinned the publishers' keys that the app names
     */
    constructor(folder: File, pinned: PublicKeys) : this(folder, pinned, DurableFiles())

    private val file = File(folder, "keys.json")
    @Volatile private var document: KeyDocument? = load()

    /** Of the newest key document; 0 where none was learned. */
    val sequence: Long
        get() = document?.sequence ?: 0

    /** The keys that verify bundles and key documents. */
    val bundleKeys: PublicKeys
        get() = document?.let { PublicKeys(it.bundleKeys.values) } ?: pinned

    /** The keys that verify edits for [bundle]. */
    fun editKeys(bundle: Bundle, now: Instant): PublicKeys =
        document?.editKeysAt(now) ?: bundle.editKeys

    /**
     * Trusts what the cloud's newest key document says; where its signer is not known, learns it
     * through the documents before. Those that were learned stay, whatever becomes of the next.
     *
     * @throws PersonaError `keys.*` for a document that does not hold, [OfflineException] or
     *   [CloudError] where none can be had, [StorageException] where it cannot be kept
     */
    fun catchUp(cloud: CloudClient, now: Instant) {
        val newest = cloud.keys() ?: return
        try {
            learn(newest, now)
        } catch (e: PersonaError) {
            if (e.code != Code.KEYS_UNKNOWN_KEY) throw e
            while (true) learn(cloud.keys(sequence + 1) ?: return, now)
        }
    }

    /** On the disk first: what is trusted now is trusted after a restart. */
    private fun learn(came: SignedKeys, now: Instant) {
        val next = verifyKeys(came.data, came.signature, bundleKeys, sequence, now)
        val stored =
            jsonObject(
                "pinned" to JsonArray(pinnedIds().map(::JsonString)),
                "document" to JsonString(String(came.data, Charsets.UTF_8)),
            )
        file.parentFile.mkdirs() // where that fails, writing says so
        files.write(file, (stored.write() + "\n").toByteArray())
        document = next
    }

    private fun load(): KeyDocument? =
        try {
            parseJson(file.readBytes()).fields("keys") {
                val learnedWith = list("pinned", JsonValue::asString)
                val text = string("document").toByteArray()
                decodeKeys(text).takeIf { learnedWith == pinnedIds() }
            }
        } catch (_: IOException) {
            null
        } catch (_: JsonException) {
            null
        } catch (_: SchemaException) {
            null
        } catch (_: PersonaError) {
            null
        }

    private fun pinnedIds(): List<String> = pinned.ids.sorted()
}
