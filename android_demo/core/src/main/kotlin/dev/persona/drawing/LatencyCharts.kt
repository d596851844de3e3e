package dev.persona.drawing

import dev.persona.measure.HistoryEntry
import dev.persona.measure.LatencyStatistics

private const val MARGIN = 12f
private const val LEFT = 44f
private const val TITLE = 34f
private const val BOTTOM = 34f
private const val BINS = 32

/** Room for half of the last tick's text. */
private const val LAST_TICK = 24f

/**
 * How long calls took: base and edited as two histograms on one axis, with p50 and p99 of each.
 *
 * @param base microseconds of single calls, as [edited]
 */
fun latencyHistogram(
    base: DoubleArray,
    edited: DoubleArray,
    width: Float,
    height: Float,
): Drawing {
    val runs = listOf(Ink.BASE to base, Ink.EDITED to edited)
    val statistics = runs.associate { (ink, calls) -> ink to LatencyStatistics.of(calls) }
    // A few outliers must not press everything else into one bin: the axis ends at p99.
    val high = statistics.values.maxOf { it.p99 }
    val low = statistics.values.minOf { it.min }
    val x = Axis(low, high, LEFT, width - LAST_TICK)
    val edges = x.ticks.first() to x.ticks.last()
    val counts = runs.associate { (ink, calls) -> ink to bins(calls, edges.first, edges.second) }
    val most = counts.values.maxOf { it.max() }
    val y = Axis(0.0, most.toDouble(), height - BOTTOM, TITLE)
    val out = ArrayList<DrawCommand>()
    out += legend(width)
    out += verticalAxis(y, width)
    for (tick in x.ticks) {
        out += Label(x.at(tick), height - BOTTOM + 15f, x.text(tick), Ink.MUTED, 11f, Anchor.MIDDLE)
    }
    out += Label(width - MARGIN, height - 4f, "µs a call", Ink.MUTED, 11f, Anchor.END)
    for ((ink, bins) in counts) out += steps(bins, x, edges, y, ink)
    for ((ink, figures) in statistics) {
        for ((value, dashed) in listOf(figures.p50 to false, figures.p99 to true)) {
            val at = x.at(value)
            out += Line(at, TITLE, at, height - BOTTOM, ink, 1.5f, dashed)
        }
    }
    val spoken = statistics.entries.joinToString(" ", transform = ::spoken)
    return Drawing(width, height, out, "Latency. $spoken")
}

private fun spoken(entry: Map.Entry<Ink, LatencyStatistics>): String {
    val (ink, figures) = entry
    val name = if (ink == Ink.BASE) "Base" else "Edited"
    val (median, slowest) = figure(figures.p50) to figure(figures.p99)
    return "$name: median $median, 99th percentile $slowest microseconds."
}

private fun bins(calls: DoubleArray, low: Double, high: Double): IntArray {
    val bins = IntArray(BINS)
    for (call in calls) {
        val bin = ((call - low) / (high - low) * BINS).toInt()
        if (call <= high) bins[bin.coerceIn(0, BINS - 1)]++
    }
    return bins
}

/** The outline of a histogram. */
private fun steps(
    bins: IntArray,
    x: Axis,
    edges: Pair<Double, Double>,
    y: Axis,
    ink: Ink,
): Polyline {
    val (low, high) = edges
    val points = ArrayList<Point>()
    points += Point(x.at(low), y.at(0.0))
    for (bin in bins.indices) {
        for (side in listOf(bin, bin + 1)) {
            points += Point(x.at(low + (high - low) * side / BINS), y.at(bins[bin].toDouble()))
        }
    }
    points += Point(x.at(high), y.at(0.0))
    return Polyline(points, ink)
}

private fun legend(width: Float): List<DrawCommand> {
    val middle = LEFT + (width - LEFT) * 0.35f
    return listOf(
        Rectangle(LEFT, 9f, LEFT + 12f, 21f, Ink.BASE, 3f),
        Label(LEFT + 18f, 20f, "base", Ink.TEXT),
        Rectangle(middle, 9f, middle + 12f, 21f, Ink.EDITED, 3f),
        Label(middle + 18f, 20f, "edited", Ink.TEXT),
        Label(width - MARGIN, 20f, "— p50  ┄ p99", Ink.MUTED, 11f, Anchor.END),
    )
}

private fun verticalAxis(y: Axis, width: Float): List<DrawCommand> =
    y.ticks.flatMap { tick ->
        listOf(
            Line(LEFT, y.at(tick), width - MARGIN, y.at(tick), Ink.GRID),
            Label(LEFT - 6f, y.at(tick) + 4f, y.text(tick), Ink.MUTED, 11f, Anchor.END),
        )
    }

/**
 * Medians of the edited model run by run, the oldest first, with the baseline as a dashed line.
 *
 * @param entries of one program, at least one
 */
fun measurementHistory(
    entries: List<HistoryEntry>,
    baseline: HistoryEntry?,
    width: Float,
    height: Float,
): Drawing {
    require(entries.isNotEmpty()) { "there is no run to draw" }
    val values = entries.map { it.editedP50Us }
    val all = values + listOfNotNull(baseline?.editedP50Us)
    val y = Axis(all.min() * 0.95, all.max() * 1.05, height - BOTTOM, TITLE)
    val room = width - MARGIN - LEFT - 16f
    val gaps = entries.size - 1
    fun x(index: Int) = LEFT + 8f + if (gaps == 0) room / 2 else room * index / gaps
    val out = ArrayList<DrawCommand>()
    out += Label(LEFT, 20f, "median of the edited model, µs", Ink.TEXT)
    out += verticalAxis(y, width)
    if (baseline != null) {
        val at = y.at(baseline.editedP50Us)
        out += Line(LEFT, at, width - MARGIN, at, Ink.ACCENT, 1.5f, dashed = true)
        out += Label(width - MARGIN, at - 5f, "baseline", Ink.ACCENT, 11f, Anchor.END)
    }
    val points = values.mapIndexed { i, value -> Point(x(i), y.at(value)) }
    if (points.size > 1) out += Polyline(points, Ink.EDITED)
    for (point in points) out += Circle(point.x, point.y, 4f, Ink.EDITED)
    out += Label(x(0), height - 10f, day(entries.first()), Ink.MUTED, 11f, edge(entries.size))
    if (entries.size > 1) {
        out += Label(x(gaps), height - 10f, day(entries.last()), Ink.MUTED, 11f, Anchor.END)
    }
    val compared = baseline?.let { ", baseline ${figure(it.editedP50Us)}" } ?: ""
    val newest = "newest median ${figure(values.last())} microseconds"
    return Drawing(width, height, out, "${entries.size} runs: $newest$compared")
}

private fun day(entry: HistoryEntry): String = "${entry.at}".take(10)

private fun edge(count: Int): Anchor = if (count == 1) Anchor.MIDDLE else Anchor.START
