package dev.persona.drawing

import java.util.Locale
import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.log10
import kotlin.math.pow

/** A scale from values to dp, with round numbers as ticks. */
internal class Axis(low: Double, high: Double, private val from: Float, private val to: Float) {
    private val step = roundStep((high - low).takeIf { it > 0 } ?: abs(high).coerceAtLeast(1e-9))
    private val first = floor(low / step) * step
    private val last = maxOf(ceil(high / step) * step, first + step)

    /** Round numbers, from the axis' begin to its end. */
    val ticks: List<Double> =
        generateSequence(0) { it + 1 }
            .map { first + it * step }
            .takeWhile { it < last + step / 2 }
            .toList()

    /** Where a value lies. */
    fun at(value: Double): Float = from + ((value - first) / (last - first) * (to - from)).toFloat()

    /** A tick's text: as many decimals as the step has. */
    fun text(tick: Double): String {
        val decimals = maxOf(0, -floor(log10(step) + 1e-9).toInt())
        return String.format(Locale.ROOT, "%.${decimals}f", tick)
    }

    private companion object {
        /** About four steps of 1, 2 or 5 times a power of ten. */
        fun roundStep(span: Double): Double {
            val rough = span / 4
            val power = 10.0.pow(floor(log10(rough)))
            return power * listOf(1.0, 2.0, 5.0, 10.0).first { it * power >= rough * 0.999 }
        }
    }
}

/** A figure for people: three digits that count, without an exponent. */
internal fun figure(value: Double): String {
    val magnitude = abs(value)
    val decimals =
        when {
            magnitude >= 100 -> 0
            magnitude >= 10 -> 1
            magnitude >= 1 -> 2
            else -> 3
        }
    return String.format(Locale.ROOT, "%.${decimals}f", value)
}
