package dev.persona.device

import dev.persona.formats.ItemsObservation
import dev.persona.formats.Observation
import dev.persona.formats.ObservationSpec
import dev.persona.formats.PooledObservation
import java.time.Duration
import java.time.Instant
import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.sqrt

/** Whether to ask the cloud for another edit. */
sealed interface GateDecision {
    /** @property drift of the window since the cloud was last told, where that is the reason */
    data class Ask(val reason: AskReason, val drift: Double?) : GateDecision

    /** The window is still like the one that the edit was made from: [drift] is below 1. */
    data class Stay(val drift: Double) : GateDecision
}

enum class AskReason {
    /** The cloud has not been told anything of this bundle. */
    NEVER_ASKED,

    /** The edit has expired, or a tenth of its time is left. */
    EXPIRING,

    /** The window is another one now. */
    DRIFTED,
}

/**
 * Asks only when it is worth it: when the window has drifted from the one that the cloud was last
 * told, or the edit's time runs out. Observations and nothing else are compared.
 */
internal object Gate {
    /** Share of an edit's time that is left when another is asked for. */
    private const val TIME_LEFT = 0.1

    /** Share of item ids that is new, or of class mix that has moved, at which drift is 1. */
    private const val MIX_LIMIT = 0.25

    /** Shift of feature means, in deviations, at which drift is 1: a medium effect (Cohen 1988). */
    private const val SHIFT_LIMIT = 0.5

    /** How many times the difference that sampling is expected to make is no drift. */
    private const val MARGIN = 2

    private const val SMALLEST_DEVIATION = 1e-6

    /** @param expired whether an edit is kept that no longer runs */
    fun decide(
        spec: ObservationSpec,
        told: Observation?,
        observation: Observation,
        state: LiveState,
        expired: Boolean,
        now: Instant,
    ): GateDecision {
        if (told == null) return GateDecision.Ask(AskReason.NEVER_ASKED, null)
        if (expired || expiresSoon(state, now)) return GateDecision.Ask(AskReason.EXPIRING, null)
        val drift = drift(spec, told, observation)
        return if (drift < 1) GateDecision.Stay(drift)
        else GateDecision.Ask(AskReason.DRIFTED, drift)
    }

    private fun expiresSoon(state: LiveState, now: Instant): Boolean {
        val info = (state as? OnEdit)?.edit?.info ?: return false
        val whole = Duration.between(info.issuedAt, info.expiresAt).seconds
        return Duration.between(now, info.expiresAt).seconds < TIME_LEFT * whole
    }

    /**
     * How far two windows are apart; 1 is the limit.
     *
     *     items    ½ Σ_v |p_v − q_v| ÷ 0.25
     *     pooled   max( √(mean_f Δ_f² ÷ s_f² − 2ν) ÷ 0.5,  (½ Σ_c |p_c − q_c| − 2μ) ÷ 0.25 )
     *
     * where s² is the mean variance of the two. ν = 1/n + 1/m and μ = ½ Σ_c √(2ν p_c (1 − p_c) ÷ π)
     * are what sampling alone is expected to make of the two sums; twice that much is no drift, so
     * that short windows ask no more often than long ones.
     */
    fun drift(spec: ObservationSpec, told: Observation, now: Observation): Double =
        if (told is PooledObservation && now is PooledObservation) {
            max(shift(told, now) / SHIFT_LIMIT, mix(told, now) / MIX_LIMIT)
        } else {
            check(told is ItemsObservation && now is ItemsObservation) { "one kind a bundle" }
            totalVariation(told.vector(spec), now.vector(spec)) / MIX_LIMIT
        }

    private fun shift(one: PooledObservation, other: PooledObservation): Double {
        val features = one.mean.values.indices
        val squares =
            features.sumOf { f ->
                val difference = one.mean.values[f].toDouble() - other.mean.values[f]
                val s = one.deviation.values[f].toDouble()
                val t = other.deviation.values[f].toDouble()
                val deviation = max(sqrt((s * s + t * t) / 2), SMALLEST_DEVIATION)
                (difference / deviation) * (difference / deviation)
            }
        return sqrt(max(0.0, squares / features.count() - MARGIN * sampling(one, other)))
    }

    private fun mix(one: PooledObservation, other: PooledObservation): Double {
        val (p, q) = one.classPrior.values to other.classPrior.values
        val noise = p.sumOf { sqrt(2 * sampling(one, other) * it * (1 - it) / PI) } / 2
        return totalVariation(p, q) - MARGIN * noise
    }

    private fun sampling(one: PooledObservation, other: PooledObservation): Double =
        1.0 / one.count + 1.0 / other.count

    private fun totalVariation(p: FloatArray, q: FloatArray): Double =
        p.indices.sumOf { abs(p[it].toDouble() - q[it]) } / 2
}
