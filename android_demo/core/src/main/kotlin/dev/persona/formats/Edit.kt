package dev.persona.formats

import java.time.DateTimeException
import java.time.Instant
import java.time.LocalDateTime
import java.time.ZoneOffset
import java.time.temporal.ChronoUnit

/** The `format` of an edit, and its media type in HTTP. */
const val EDIT_FORMAT = "persona.edit/1"
const val EDIT_MEDIA_TYPE = "application/vnd.persona.edit+safetensors"

internal const val PROBE = "probe.expected"

/**
 * What an edit says of itself.
 *
 * @property bundle sha256 of the manifest, in hex
 * @property sequence grows with each edit of a device
 * @property prototype the prototype that the edit is added to, or null for the base
 * @property issuedAt whole seconds, as is [expiresAt]
 */
data class EditInfo(
    val model: String,
    val bundle: String,
    val device: String,
    val sequence: Long,
    val prototype: Long?,
    val issuedAt: Instant,
    val expiresAt: Instant,
)

/**
 * An edit that has passed every rule: only [verifyEdit] makes one, so that nothing else can be
 * applied.
 *
 * @property tensors its change, with an edit's shapes
 * @property probe what the cloud computed for the first golden input with this very edit
 */
class VerifiedEdit
internal constructor(val info: EditInfo, val tensors: SlotTensors, val probe: FloatTensor)

/** RFC 3339 in UTC with whole seconds, the only spelling that the contract allows. */
fun formatTime(moment: Instant): String = moment.truncatedTo(ChronoUnit.SECONDS).toString()

/** The reverse of [formatTime]; null for any other spelling. */
fun parseTime(text: String): Instant? {
    val match = TIME.matchEntire(text) ?: return null
    val (year, month, day, hour, minute, second) = match.destructured
    if (year == "0000") return null
    return try {
        LocalDateTime.of(
                year.toInt(),
                month.toInt(),
                day.toInt(),
                hour.toInt(),
                minute.toInt(),
                second.toInt(),
            )
            .toInstant(ZoneOffset.UTC)
    } catch (_: DateTimeException) {
        null
    }
}

/** A decimal whole number up to [MAX_WHOLE] without sign or leading zero; else null. */
internal fun parseWhole(text: String): Long? =
    if (WHOLE.matches(text)) text.toLong().takeIf { it <= MAX_WHOLE } else null

private val TIME = Regex("([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})Z")
private val WHOLE = Regex("0|[1-9][0-9]{0,15}")
internal val SHA256 = Regex("[0-9a-f]{64}")

private val METADATA =
    listOf(
        "format",
        "model",
        "bundle",
        "device",
        "sequence",
        "prototype",
        "issued_at",
        "expires_at",
    )

/** Reads the metadata of an edit whose `format` is known. */
internal fun parseInfo(metadata: Map<String, String>): EditInfo {
    fun refuse(message: String): Nothing =
        throw PersonaError(Code.METADATA_INVALID, "edit metadata: $message")

    fun whole(name: String): Long {
        val text = metadata.getValue(name)
        return parseWhole(text) ?: refuse("$name \"$text\" is not a whole number up to $MAX_WHOLE")
    }

    fun time(name: String): Instant {
        val text = metadata.getValue(name)
        return parseTime(text)
            ?: refuse("$name \"$text\" is not a UTC time such as 2026-01-31T12:00:00Z")
    }

    if (metadata.keys != METADATA.toSet()) {
        refuse("expected ${METADATA.joinToString()}, got ${metadata.keys.joinToString()}")
    }
    if (!SHA256.matches(metadata.getValue("bundle"))) {
        refuse("bundle \"${metadata["bundle"]}\" is not a sha256 in lower-case hex")
    }
    val info =
        EditInfo(
            model = metadata.getValue("model"),
            bundle = metadata.getValue("bundle"),
            device = metadata.getValue("device"),
            sequence = whole("sequence"),
            prototype = if (metadata["prototype"] == "none") null else whole("prototype"),
            issuedAt = time("issued_at"),
            expiresAt = time("expires_at"),
        )
    if (info.model.isEmpty() || info.device.isEmpty() || info.sequence == 0L) {
        refuse("model, device and sequence must not be empty or 0")
    }
    if (info.expiresAt <= info.issuedAt) refuse("expires_at must be later than issued_at")
    return info
}
