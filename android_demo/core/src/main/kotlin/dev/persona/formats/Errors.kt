package dev.persona.formats

/**
 * One code a fault, the same in Python, Kotlin and Swift; `docs/edit-format.md` lists them. Their
 * order is the order in which an edit is verified.
 *
 * @property text what stands in files, logs and answers, such as `edit.expired`
 */
enum class Code(val text: String) {
    TOO_LARGE("edit.too_large"),
    UNKNOWN_KEY("edit.unknown_key"),
    BAD_SIGNATURE("edit.bad_signature"),

    CONTAINER_TRUNCATED("container.truncated"),
    CONTAINER_HEADER_TOO_LONG("container.header_too_long"),
    CONTAINER_HEADER_INVALID("container.header_invalid"),
    CONTAINER_DUPLICATE_KEY("container.duplicate_key"),
    CONTAINER_SIZE_MISMATCH("container.size_mismatch"),
    CONTAINER_OUT_OF_BOUNDS("container.out_of_bounds"),
    CONTAINER_OVERLAP("container.overlap"),
    CONTAINER_HOLE("container.hole"),
    CONTAINER_TRAILING_BYTES("container.trailing_bytes"),

    UNKNOWN_FORMAT("edit.unknown_format"),
    METADATA_INVALID("edit.metadata_invalid"),
    OTHER_BASE("edit.other_base"),
    OTHER_DEVICE("edit.other_device"),
    REPLAYED("edit.replayed"),
    EXPIRED("edit.expired"),
    FROM_FUTURE("edit.from_future"),
    UNKNOWN_PROTOTYPE("edit.unknown_prototype"),

    SLOT_MISSING("slot.missing"),
    SLOT_UNKNOWN("slot.unknown"),
    SLOT_KIND("slot.kind"),
    SLOT_SHAPE("slot.shape"),
    SLOT_DTYPE("slot.dtype"),
    PROBE_MISSING("probe.missing"),
    PROBE_SHAPE("probe.shape"),
    NOT_FINITE("value.not_finite"),
    BEYOND_BOUND("value.beyond_bound"),

    PROBE_MISMATCH("probe.mismatch"),
    PROBE_NO_EFFECT("probe.no_effect"),

    BUNDLE_FILE_MISSING("bundle.file_missing"),
    BUNDLE_FILE_CHANGED("bundle.file_changed"),
    BUNDLE_FILE_UNLISTED("bundle.file_unlisted"),
    BUNDLE_SIGNATURE("bundle.bad_signature"),
    BUNDLE_UNKNOWN_KEY("bundle.unknown_key"),
    BUNDLE_MANIFEST("bundle.manifest_invalid"),
    BUNDLE_TENSORS("bundle.tensors_invalid"),
    BUNDLE_GOLDEN("bundle.golden_mismatch"),

    OBSERVATION_INVALID("observation.invalid"),
    OBSERVATION_EMPTY("observation.empty"),
    OBSERVATION_TOO_LONG("observation.too_long"),
    OBSERVATION_WIDTH("observation.width"),
    OBSERVATION_NOT_FINITE("observation.not_finite"),
    OBSERVATION_OTHER_BASE("observation.other_base"),

    KEYS_TOO_LARGE("keys.too_large"),
    KEYS_UNKNOWN_KEY("keys.unknown_key"),
    KEYS_BAD_SIGNATURE("keys.bad_signature"),
    KEYS_UNKNOWN_FORMAT("keys.unknown_format"),
    KEYS_INVALID("keys.invalid"),
    KEYS_REPLAYED("keys.replayed"),
    KEYS_FROM_FUTURE("keys.from_future"),
}

/**
 * A file or document that breaks the contract.
 *
 * @property code stable, for programs
 * @property explanation for people: what was expected, what came, what to do
 */
class PersonaError(val code: Code, val explanation: String) :
    Exception("$explanation [${code.text}]")
