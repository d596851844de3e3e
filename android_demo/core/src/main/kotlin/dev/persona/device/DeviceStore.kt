package dev.persona.device

import dev.persona.formats.DetachedSignature
import dev.persona.formats.Envelope
import dev.persona.formats.JsonException
import dev.persona.formats.JsonNull
import dev.persona.formats.JsonString
import dev.persona.formats.JsonValue
import dev.persona.formats.JsonWhole
import dev.persona.formats.Observation
import dev.persona.formats.ObservationSpec
import dev.persona.formats.PersonaError
import dev.persona.formats.SchemaException
import dev.persona.formats.StoredSignature
import dev.persona.formats.asWhole
import dev.persona.formats.fields
import dev.persona.formats.jsonObject
import dev.persona.formats.parseJson
import dev.persona.formats.readObservation
import dev.persona.formats.toSafetensors
import dev.persona.formats.write
import java.io.File
import java.io.IOException

/**
 * What a device keeps between starts, in a folder: who it is, its newest sequence, its active edit,
 * and what it last told the cloud.
 *
 * The edit's bytes are written first, the small state file that names them last, each atomically:
 * killed at any moment, the next start finds the old edit or the new one, whole. Not thread-safe.
 */
internal class DeviceStore(
    private val folder: File,
    bundle: String,
    private val files: DurableFiles,
) {
    private val stateFile = File(folder, "state.json")
    private val observationFile = File(folder, "observation.safetensors")

    var state: State = load(bundle)
        private set

    init {
        if (!folder.isDirectory && !folder.mkdirs()) {
            val cause = IOException("$folder cannot be made")
            throw StorageException("cannot keep a device in $folder; choose another folder", cause)
        }
        sweep()
    }

    /**
     * @property bundle digest that the active edit was made for
     * @property device from enrolment, as is [token], the secret for the cloud; empty before
     * @property sequence of the newest edit that passed every rule
     * @property edit sequence of the active edit, or null
     */
    data class State(
        val bundle: String,
        val device: String = "",
        val token: String = "",
        val sequence: Long = 0,
        val edit: Long? = null,
    )

    /** An edit's bytes as they came, with their signature. */
    class StoredEdit(val data: ByteArray, val signature: DetachedSignature)

    /** Remembers who the cloud says that we are. Another device's edit no longer applies. */
    fun enrolled(device: String, token: String) {
        val known = state.copy(device = device, token = token)
        save(if (device == state.device) known else known.copy(sequence = 0, edit = null))
    }

    /** The cloud knows us no more: our token is void, and what it was told was another device's. */
    fun forgotten() {
        files.remove(observationFile)
        save(state.copy(token = ""))
    }

    /** An edit is tried once: from now on only newer ones are, whatever becomes of this one. */
    fun tried(sequence: Long) = save(state.copy(sequence = sequence))

    /** Makes an edit that passed rules and probe the one that the next start finds. */
    fun activate(data: ByteArray, signature: DetachedSignature, sequence: Long) {
        val (edit, signed) = editFiles(sequence)
        files.write(signed, signature.encode())
        files.write(edit, data)
        save(state.copy(sequence = sequence, edit = sequence))
        sweep()
    }

    /** Forgets the active edit and keeps its sequence: it may not come back. */
    fun deactivate() {
        save(state.copy(edit = null))
        sweep()
    }

    /** The active edit, if there is one that can be read. */
    fun active(): StoredEdit? {
        val (edit, signed) = editFiles(state.edit ?: return null)
        return try {
            val signature = StoredSignature.decode(signed.readBytes())?.signature
            signature?.let { StoredEdit(edit.readBytes(), it) }
        } catch (_: IOException) {
            null
        }
    }

    /** Remembers what the cloud was last told, for the gate. */
    fun told(observation: Observation) =
        files.write(observationFile, Envelope(state.bundle, observation).toSafetensors())

    /** What the cloud was last told, if that was of this bundle. */
    fun lastTold(spec: ObservationSpec): Observation? =
        try {
            val envelope = readObservation(spec, observationFile.readBytes())
            envelope.observation.takeIf { envelope.bundle == state.bundle }
        } catch (_: IOException) {
            null
        } catch (_: PersonaError) {
            null
        }

    /** The stored state. With a new bundle the old edit no longer applies; who we are does. */
    private fun load(bundle: String): State {
        val stored =
            try {
                readState(parseJson(stateFile.readBytes()))
            } catch (_: IOException) {
                return State(bundle)
            } catch (_: JsonException) {
                return State(bundle)
            } catch (_: SchemaException) {
                return State(bundle)
            }
        return if (stored.bundle == bundle) stored else stored.copy(bundle = bundle, edit = null)
    }

    private fun readState(value: JsonValue): State =
        value.fields("state") {
            State(
                bundle = string("bundle"),
                device = string("device"),
                token = string("token"),
                sequence = whole("sequence"),
                edit = nullable("edit", JsonValue::asWhole),
            )
        }

    private fun save(next: State) {
        val document =
            jsonObject(
                "bundle" to JsonString(next.bundle),
                "device" to JsonString(next.device),
                "token" to JsonString(next.token),
                "sequence" to JsonWhole(next.sequence),
                "edit" to (next.edit?.let(::JsonWhole) ?: JsonNull),
            )
        files.write(stateFile, (document.write() + "\n").toByteArray())
        state = next
    }

    /** Removes edits that are not active, and unfinished files as being killed leaves them. */
    private fun sweep() {
        val kept = state.edit?.let { editFiles(it).toList() } ?: emptyList()
        folder
            .listFiles { file -> STALE.any { file.name.startsWith(it) } && file !in kept }
            ?.forEach(files::remove)
    }

    private fun editFiles(sequence: Long): Pair<File, File> {
        val name = "edit-$sequence.safetensors"
        return File(folder, name) to File(folder, "$name.sig")
    }

    private companion object {
        val STALE = listOf("edit-", ".edit-", ".state.json.", ".observation.safetensors.", ".keys.json.")
    }
}
