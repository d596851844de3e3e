package dev.persona.formats

import java.time.Duration
import java.time.Instant
import kotlin.math.abs

/** How far a phone's clock may lag behind the cloud's. */
internal val CLOCK_SKEW: Duration = Duration.ofMinutes(5)

/**
 * What a device knows when an edit comes.
 *
 * @property sequence of the newest edit that it ever accepted; 0 before the first
 * @property probeShape shape of the first golden output
 * @property maxBytes the largest edit file that the bundle allows
 */
data class Expectation(
    val model: String,
    val bundle: String,
    val device: String,
    val sequence: Long,
    val slots: List<SlotSpec>,
    val prototypes: Long,
    val probeShape: List<Long>,
    val maxBytes: Long,
)

/**
 * The edit in [file], if every rule of `docs/edit-format.md`, "Verification", holds. A pure
 * function: nothing is applied before all have passed.
 *
 * @throws PersonaError with the code of the first rule that fails
 */
fun verifyEdit(
    file: ByteArray,
    signature: DetachedSignature,
    keys: PublicKeys,
    expected: Expectation,
    now: Instant,
): VerifiedEdit {
    checkSize(file, expected)
    checkSignature(file, signature, keys)
    val container = Container.decode(file)
    checkFormat(container.metadata)
    val info = parseInfo(container.metadata)
    checkAddressee(info, expected)
    checkTime(info, now)
    checkTensors(info, container.tensors, expected)
    return checkedValues(info, container.tensors, expected.slots)
}

private fun checkSize(file: ByteArray, expected: Expectation) {
    if (file.size > expected.maxBytes) {
        throw PersonaError(
            Code.TOO_LARGE,
            "the edit has ${file.size} bytes or more; at most ${expected.maxBytes} are allowed. " +
                "Check that this is the right cloud, and ask again",
        )
    }
}

private fun checkSignature(file: ByteArray, signature: DetachedSignature, keys: PublicKeys) {
    if (!keys.knows(signature.keyId)) {
        throw PersonaError(
            Code.UNKNOWN_KEY,
            "signed with key \"${signature.keyId}\", which neither the bundle nor a " +
                "key document names now; export the bundle for this cloud, or ask the right cloud",
        )
    }
    if (!keys.verifies(signature, file)) {
        throw PersonaError(
            Code.BAD_SIGNATURE,
            "the signature by key \"${signature.keyId}\" does not match the bytes; ask again",
        )
    }
}

private fun checkFormat(metadata: Map<String, String>) {
    if (metadata["format"] != EDIT_FORMAT) {
        throw PersonaError(
            Code.UNKNOWN_FORMAT,
            "expected format \"$EDIT_FORMAT\", got \"${metadata["format"] ?: "none"}\"; " +
                "this reader is older or newer than the cloud",
        )
    }
}

private fun checkAddressee(info: EditInfo, expected: Expectation) {
    if (info.model != expected.model || info.bundle != expected.bundle) {
        throw PersonaError(
            Code.OTHER_BASE,
            "made for ${info.model} with bundle ${info.bundle.take(12)}, this device runs " +
                "${expected.model} with bundle ${expected.bundle.take(12)}; ask for an edit again",
        )
    }
    if (info.device != expected.device) {
        throw PersonaError(
            Code.OTHER_DEVICE,
            "made for device \"${info.device}\", this is \"${expected.device}\"; " +
                "ask for one of its own",
        )
    }
    if (info.sequence <= expected.sequence) {
        throw PersonaError(
            Code.REPLAYED,
            "sequence ${info.sequence} is not newer than ${expected.sequence}, which this device " +
                "has already had; ask for a new one",
        )
    }
}

private fun checkTime(info: EditInfo, now: Instant) {
    if (info.expiresAt <= now) {
        throw PersonaError(
            Code.EXPIRED,
            "expired at ${formatTime(info.expiresAt)}, it is ${formatTime(now)}; ask again",
        )
    }
    if (info.issuedAt > now + CLOCK_SKEW) {
        throw PersonaError(
            Code.FROM_FUTURE,
            "issued at ${formatTime(info.issuedAt)}, but it is ${formatTime(now)} here; " +
                "check the clock of the device and of the cloud",
        )
    }
}

/** Names, kind, shapes and dtypes: each rule for the whole file before the next. */
private fun checkTensors(
    info: EditInfo,
    tensors: Map<String, StoredTensor>,
    expected: Expectation,
) {
    if (info.prototype != null && info.prototype >= expected.prototypes) {
        faulty(
            Code.UNKNOWN_PROTOTYPE,
            "relative to prototype ${info.prototype}; the bundle has ${expected.prototypes}",
        )
    }
    checkNames(tensors.keys, expected.slots)
    val shapes = expected.slots.editTensors()
    for ((name, shape) in shapes) {
        val found = tensors.getValue(name).shape
        if (found != shape) faulty(Code.SLOT_SHAPE, "\"$name\" must have shape $shape, got $found")
    }
    for (name in shapes.keys) {
        val dtype = tensors.getValue(name).dtype
        if (dtype != "F16" && dtype != "F32") {
            faulty(Code.SLOT_DTYPE, "\"$name\" must be F16 or F32, got $dtype")
        }
    }
    val probe = tensors[PROBE] ?: faulty(Code.PROBE_MISSING, "the edit has no \"$PROBE\"")
    if (probe.dtype != "F32" || probe.shape != expected.probeShape) {
        faulty(
            Code.PROBE_SHAPE,
            "\"$PROBE\" must be F32 with shape ${expected.probeShape}, " +
                "got ${probe.dtype} with shape ${probe.shape}",
        )
    }
}

private fun checkNames(names: Set<String>, slots: List<SlotSpec>) {
    val present =
        slots.associateWith { slot -> SUFFIXES.filter { "${slot.name}.$it" in names }.toSet() }
    for ((slot, suffixes) in present) {
        if (suffixes.isEmpty()) {
            faulty(Code.SLOT_MISSING, "the edit has no tensor for slot \"${slot.name}\"")
        }
    }
    val known = slots.flatMap { slot -> SUFFIXES.map { "${slot.name}.$it" } }.toSet() + PROBE
    val unknown = names.firstOrNull { it !in known }
    if (unknown != null) {
        val there = slots.joinToString { it.name }
        faulty(Code.SLOT_UNKNOWN, "tensor \"$unknown\" belongs to no slot; slots are $there")
    }
    for ((slot, suffixes) in present) {
        val wanted = slot.editShapes.keys
        if (suffixes != wanted) {
            faulty(
                Code.SLOT_KIND,
                "slot \"${slot.name}\" is ${slot.kind.text} and wants ${wanted.joinToString()}; " +
                    "the edit has ${suffixes.joinToString()}",
            )
        }
    }
}

private fun checkedValues(
    info: EditInfo,
    tensors: Map<String, StoredTensor>,
    slots: List<SlotSpec>,
): VerifiedEdit {
    val limits = slots.limits()
    val values = limits.mapValues { tensors.getValue(it.key).floats() }
    val probe = tensors.getValue(PROBE).floats()
    for ((name, tensor) in values + (PROBE to probe)) {
        if (!tensor.isFinite()) {
            faulty(
                Code.NOT_FINITE,
                "\"$name\" holds NaN or infinity, only finite numbers are taken",
            )
        }
    }
    for ((name, limit) in limits) {
        val largest = values.getValue(name).largest()
        if (largest > limit) {
            faulty(Code.BEYOND_BOUND, "\"$name\" reaches $largest; its slot allows $limit")
        }
    }
    return VerifiedEdit(info, values, probe)
}

internal fun FloatTensor.isFinite(): Boolean = values.all { it.isFinite() }

/** Largest magnitude, 0 without elements; NaN does not count. */
internal fun FloatTensor.largest(): Float =
    values.fold(0f) { most, value -> if (abs(value) > most) abs(value) else most }

/** What a sound cloud never signs, so asking again alone does not help. */
private fun faulty(code: Code, message: String): Nothing =
    throw PersonaError(
        code,
        "$message. The cloud signed a faulty edit: tell who runs it, and go on without",
    )
