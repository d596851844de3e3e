package dev.persona.formats

/** A rule of an edit's verification, and what became of it. */
data class VerificationStep(val code: Code, val rule: String, val result: StepResult)

enum class StepResult {
    PASSED,
    FAILED,
    NOT_REACHED,
}

/**
 * The rules in their order with what became of each, for people.
 *
 * @param failed the code of the first rule that failed, or null where all passed
 */
fun verificationSteps(failed: Code?): List<VerificationStep> =
    RULES.map { (code, rule) ->
        val result =
            when {
                failed == null || code < failed -> StepResult.PASSED
                code == failed -> StepResult.FAILED
                else -> StepResult.NOT_REACHED
            }
        VerificationStep(code, rule, result)
    }

private val RULES =
    listOf(
        Code.TOO_LARGE to "the file has at most `max_edit_bytes` bytes",
        Code.UNKNOWN_KEY to "the bundle names the key",
        Code.BAD_SIGNATURE to "the signature is over these bytes",
        Code.CONTAINER_TRUNCATED to "the header is there",
        Code.CONTAINER_HEADER_TOO_LONG to "the header is within its limit",
        Code.CONTAINER_HEADER_INVALID to "the header is strict JSON",
        Code.CONTAINER_DUPLICATE_KEY to "no key stands twice",
        Code.CONTAINER_SIZE_MISMATCH to "shapes fit offsets",
        Code.CONTAINER_OUT_OF_BOUNDS to "all tensors end within the file",
        Code.CONTAINER_OVERLAP to "no two tensors share bytes",
        Code.CONTAINER_HOLE to "no bytes lie between tensors",
        Code.CONTAINER_TRAILING_BYTES to "no bytes follow the last tensor",
        Code.UNKNOWN_FORMAT to "the format is `$EDIT_FORMAT`",
        Code.METADATA_INVALID to "the metadata are complete and well-formed",
        Code.OTHER_BASE to "made for this model and bundle",
        Code.OTHER_DEVICE to "made for this device",
        Code.REPLAYED to "newer than the newest edit so far",
        Code.EXPIRED to "not expired",
        Code.FROM_FUTURE to "not from the future",
        Code.UNKNOWN_PROTOTYPE to "its prototype exists",
        Code.SLOT_MISSING to "every slot has a tensor",
        Code.SLOT_UNKNOWN to "every tensor is of a slot",
        Code.SLOT_KIND to "every slot has the tensors of its kind",
        Code.SLOT_SHAPE to "every tensor has its slot's shape",
        Code.SLOT_DTYPE to "every slot tensor is F16 or F32",
        Code.PROBE_MISSING to "there is a probe",
        Code.PROBE_SHAPE to "the probe has the golden output's shape",
        Code.NOT_FINITE to "all values are finite",
        Code.BEYOND_BOUND to "all values are within their slot's bound",
        Code.PROBE_MISMATCH to "the edited program does what the cloud computed",
        Code.PROBE_NO_EFFECT to "the edit has an effect",
    )
