package dev.persona.formats

import kotlin.math.abs
import kotlin.math.max

/**
 * After the swap: does the edited program do what the cloud computed for this very edit?
 *
 * @param expected what the cloud computed for the first golden input
 * @param output what the edited program gives for it, and [base] the program without an edit
 * @param tolerance largest difference, relative to max(1, largest magnitude of [expected])
 * @param changesNothing whether prototype and edit leave the base as it is
 * @throws PersonaError `probe.mismatch` or `probe.no_effect`
 */
fun checkProbe(
    expected: FloatTensor,
    output: FloatTensor,
    base: FloatTensor,
    tolerance: Double,
    changesNothing: Boolean,
) {
    if (output.shape != expected.shape) {
        throw PersonaError(
            Code.PROBE_MISMATCH,
            "the edited program answers with shape ${output.shape}, the cloud computed " +
                "${expected.shape}. The edit is taken back; " +
                "check that cloud and device have the same bundle",
        )
    }
    val difference = difference(expected, output)
    val allowed = allowed(expected, tolerance)
    if (!(difference <= allowed)) {
        throw PersonaError(
            Code.PROBE_MISMATCH,
            "the edited program is $difference away from what the cloud computed; $allowed is " +
                "allowed. The edit is taken back; check that cloud and device have the same bundle",
        )
    }
    if (!changesNothing && sameNumbers(output, base)) {
        throw PersonaError(
            Code.PROBE_NO_EFFECT,
            "the edited program must answer otherwise than the base, but answers alike: the edit " +
                "reached no slot. It is taken back; export the bundle again",
        )
    }
}

/** How far an output may be from the [expected] one. */
internal fun allowed(expected: FloatTensor, tolerance: Double): Double =
    tolerance * max(1.0, expected.largest().toDouble())

/** Largest difference, element by element in binary32; NaN if any is. Shapes must be equal. */
internal fun difference(expected: FloatTensor, output: FloatTensor): Double {
    var most = 0f
    for (i in expected.values.indices) {
        val difference = abs(expected.values[i] - output.values[i])
        if (difference.isNaN()) return Double.NaN
        most = max(most, difference)
    }
    return most.toDouble()
}

private fun sameNumbers(one: FloatTensor, other: FloatTensor): Boolean =
    one.shape == other.shape && one.values.indices.all { one.values[it] == other.values[it] }
