package dev.persona.measure

import dev.persona.formats.Latency
import kotlin.math.floor
import kotlin.math.pow
import kotlin.math.sqrt

/** Share cut from each end for the trimmed mean, as ExecuTorch's minibench does. */
private const val TRIMMED = 0.2

/**
 * A run's single calls in figures, in microseconds.
 *
 * @property trimmedMean the mean without the fastest and the slowest fifth
 * @property deviation of the sample, with n - 1; 0 for a single call
 */
data class LatencyStatistics(
    val count: Int,
    val mean: Double,
    val trimmedMean: Double,
    val deviation: Double,
    val min: Double,
    val p50: Double,
    val p90: Double,
    val p95: Double,
    val p99: Double,
    val max: Double,
) {
    /** What the measurement record keeps. */
    fun latency(warmUp: Int) = Latency(count.toLong(), warmUp.toLong(), p50, p90, p99, mean)

    companion object {
        /** Summarises one call or more, in microseconds, in any order. */
        fun of(microseconds: DoubleArray): LatencyStatistics {
            require(microseconds.isNotEmpty()) { "there is no call to summarise" }
            val sorted = microseconds.sortedArray()
            val n = sorted.size
            val mean = sorted.average()
            val cut = (TRIMMED * n).toInt()
            val squares = sorted.sumOf { (it - mean).pow(2) }
            return LatencyStatistics(
                count = n,
                mean = mean,
                trimmedMean = sorted.copyOfRange(cut, n - cut).average(),
                deviation = if (n == 1) 0.0 else sqrt(squares / (n - 1)),
                min = sorted.first(),
                p50 = quantile(sorted, 0.5),
                p90 = quantile(sorted, 0.9),
                p95 = quantile(sorted, 0.95),
                p99 = quantile(sorted, 0.99),
                max = sorted.last(),
            )
        }
    }
}

/** The [q]-quantile of sorted values, linear between neighbours. */
internal fun quantile(sorted: DoubleArray, q: Double): Double {
    val position = q * (sorted.size - 1)
    val below = floor(position).toInt()
    val above = minOf(below + 1, sorted.size - 1)
    return sorted[below] + (position - below) * (sorted[above] - sorted[below])
}

/**
 * Microseconds of each call, base and edited in turn, so that a noisy moment hits both.
 *
 * @property totalMs from the first counted call to the last
 */
class InterleavedRun(
    val base: DoubleArray,
    val edited: DoubleArray,
    val warmUp: Int,
    val totalMs: Double,
)

/**
 * Times [base] and [edited] in turn: [warmUp] calls each that do not count, then [iterations] or as
 * many more as it takes to fill [minimumMs].
 *
 * @param goOn asked before each pair of calls; once false, the run ends with what there is
 */
fun interleaved(
    warmUp: Int,
    iterations: Int,
    minimumMs: Double,
    base: () -> Unit,
    edited: () -> Unit,
    goOn: () -> Boolean = { true },
): InterleavedRun {
    val times = List(2) { ArrayList<Double>() }
    repeat(warmUp) {
        base()
        edited()
    }
    val start = System.nanoTime()
    fun elapsedMs() = (System.nanoTime() - start) / 1e6
    while ((times[0].size < iterations || elapsedMs() < minimumMs) && goOn()) {
        times[0] += microseconds(base)
        times[1] += microseconds(edited)
    }
    return InterleavedRun(times[0].toDoubleArray(), times[1].toDoubleArray(), warmUp, elapsedMs())
}

private inline fun microseconds(call: () -> Unit): Double {
    val start = System.nanoTime()
    call()
    return (System.nanoTime() - start) / 1e3
}
