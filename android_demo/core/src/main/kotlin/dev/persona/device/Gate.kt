package dev.persona.device

import dev.persona.formats.EditInfo
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
    /** The cloud has answered no window of this bundle. */
    NEVER_ASKED,

    /** The kept edit does not run, or less than a tenth of its time is left. */
    EXPIRING,

    /** The window is another one now: its drift is 1 or more. */
    DRIFTED,
}

/**
 * Asks only when it is worth it: when the window has drifted from the one that the cloud was last
 * told, or the edit's time runs out. Observations and nothing else are compared.
 */
internal object Gate {
    /** Another edit is asked for when less than a tenth of the edit's time is left. */
    private const val TENTH = 10L

    /** Share of item ids that is new, or of class mix that has moved, at which drift is 1. */
    private const val MIX_LIMIT = 0.25

    /** Shift of feature means, in deviations, at which drift is 1: a medium effect (Cohen 1988). */
    private const val SHIFT_LIMIT = 0.5

    /** How many times the difference that sampling is expected to make is no drift. */
    private const val MARGIN = 2

    private const val SMALLEST_DEVIATION = 1e-6

    /**
     * @param told what the cloud was last told
     * @param running of the edit that runs
     * @param kept whether an edit is in the store, which may have stopped running
     */
    fun decide(
        spec: ObservationSpec,
        told: Observation?,
        observed: Observation,
        running: EditInfo?,
        kept: Boolean,
        now: Instant,
    ): GateDecision {
        if (told == null) return GateDecision.Ask(AskReason.NEVER_ASKED, null)
        val expiring = if (running == null) kept else endsSoon(running, now)
        if (expiring) return GateDecision.Ask(AskReason.EXPIRING, null)
        val drift = drift(spec, told, observed)
        return if (drift < 1) GateDecision.Stay(drift)
        else GateDecision.Ask(AskReason.DRIFTED, drift)
    }

    private fun endsSoon(info: EditInfo, now: Instant): Boolean {
        val left = Duration.between(now, info.expiresAt)
        return left.multipliedBy(TENTH) < Duration.between(info.issuedAt, info.expiresAt)
    }

    /**
     * How far two windows are apart; 1 is the limit.
     *
     *     items    TV(p, q) ÷ 0.25
     *     pooled   max( √max(0, mean_f (Δ_f ÷ s_f)² − 2ν) ÷ 0.5,  (TV(p, q) − 2μ) ÷ 0.25 )
     *
     * where TV = ½ Σ |p − q| and s² is the mean variance of the two. ν = 1/n + 1/m and
     * μ = ½ Σ_c √(2ν p_c (1 − p_c) ÷ π) are what sampling alone is expected to make of the two sums;
     * twice that much is no drift, so that short windows ask no more often than long ones.
     */
    fun drift(spec: ObservationSpec, told: Observation, observed: Observation): Double =
        if (told is PooledObservation && observed is PooledObservation) {
            max(shift(told, observed) / SHIFT_LIMIT, mix(told, observed) / MIX_LIMIT)
        } else {
            check(told is ItemsObservation && observed is ItemsObservation) { "one kind a bundle" }
            totalVariation(told.vector(spec), observed.vector(spec)) / MIX_LIMIT
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
        // As doubles first: 1 - p of a float is rounded to a float.
        val shares = p.map(Float::toDouble)
        val noise = shares.sumOf { sqrt(2 * sampling(one, other) * it * (1 - it) / PI) } / 2
        return totalVariation(p, q) - MARGIN * noise
    }

    private fun sampling(one: PooledObservation, other: PooledObservation): Double =
        1.0 / one.count + 1.0 / other.count

    private fun totalVariation(p: FloatArray, q: FloatArray): Double =
        p.indices.sumOf { abs(p[it].toDouble() - q[it]) } / 2
}
