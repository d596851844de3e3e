package dev.persona.drawing

import dev.persona.formats.FloatTensor
import dev.persona.measure.HistoryEntry
import java.time.Instant
import java.util.Random
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

class DrawingTest {
    private val random = Random(3)

    private fun calls(mean: Double) = DoubleArray(400) { mean + 5 * random.nextGaussian() }

    private inline fun <reified T> Drawing.all(): List<T> = commands.filterIsInstance<T>()

    private fun Drawing.assertInside() {
        fun x(value: Float) = assertTrue(value in 0f..width, "x $value of $width")
        fun y(value: Float) = assertTrue(value in 0f..height, "y $value of $height")
        for (command in commands) {
            when (command) {
                is Rectangle -> listOf(command.left, command.right).forEach(::x).also { y(command.top) }
                is Line -> listOf(command.x1, command.x2).forEach(::x).also { y(command.y1) }
                is Polyline -> command.points.forEach { x(it.x).also { _ -> y(it.y) } }
                is Circle -> x(command.x).also { y(command.y) }
                is Label -> x(command.x).also { y(command.y) }
            }
        }
        assertTrue(description.isNotEmpty())
    }

    @Test
    fun `the histogram marks the medians where they are`() {
        val drawing = latencyHistogram(calls(100.0), calls(130.0), 360f, 220f)
        drawing.assertInside()
        val (base, edited) =
            listOf(Ink.BASE, Ink.EDITED).map { ink ->
                drawing.all<Line>().single { it.ink == ink && !it.dashed }.x1
            }
        // The axis is linear: two labelled ticks say where 100 and 130 must be.
        val ticks = drawing.all<Label>().filter { it.anchor == Anchor.MIDDLE }
        val (low, high) = ticks.first() to ticks.last()
        val perUnit = (high.x - low.x) / (high.text.toFloat() - low.text.toFloat())
        assertEquals(30f * perUnit, edited - base, 2f * perUnit)
        assertEquals(low.x + (100f - low.text.toFloat()) * perUnit, base, 2f * perUnit)
    }

    @Test
    fun `the area under both histograms is the same, for both have as many calls`() {
        val drawing = latencyHistogram(calls(100.0), calls(110.0), 360f, 220f)
        val areas = drawing.all<Polyline>().map { line ->
            val floor = line.points.first().y
            line.points.zipWithNext().sumOf { (a, b) -> ((b.x - a.x) * (floor - a.y)).toDouble() }
        }
        assertEquals(2, areas.size)
        assertEquals(areas[0], areas[1], areas[0] * 0.03)
    }

    @Test
    fun `calls that all took the same time can be drawn`() {
        latencyHistogram(DoubleArray(50) { 40.0 }, DoubleArray(50) { 40.0 }, 360f, 220f).assertInside()
    }

    @Test
    fun `a choice's bars are as long as its scores`() {
        val choices = listOf(Choice("three", 0.2f, 0.8f), Choice("eight", 0.6f, 0.1f))
        val drawing = beforeAfterBars(choices, 360f)
        drawing.assertInside()
        val lengths = drawing.all<Rectangle>().map { it.right - it.left }
        assertEquals(4f, lengths[1] / lengths[0], 0.01f)
        assertEquals(3f, lengths[2] / lengths[0], 0.01f)
        assertEquals("three", drawing.all<Label>().single { it.bold }.text)
    }

    @Test
    fun `a slot's bar ends at its bound`() {
        val drawing = slotSizes(listOf(SlotUse("head", 1f), SlotUse("norm", 0f)), 360f)
        drawing.assertInside()
        val (bound, used) = drawing.all<Rectangle>()
        assertEquals(bound.right, used.right)
        assertEquals(3, drawing.all<Rectangle>().size)
    }

    @Test
    fun `on the map opposite prototypes lie opposite, and the sum of half of one lies half way`() {
        fun change(vararg values: Float) = mapOf("head.weight" to FloatTensor(listOf(3), floatArrayOf(*values)))
        val prototypes = listOf(change(2f, 0f, 0f), change(-2f, 0f, 0f), change(0f, 0f, 1f))
        val zero = change(0f, 0f, 0f)
        val drawing = prototypeMap(prototypes, zero to change(1f, 0f, 0f), null, 300f, 300f)
        drawing.assertInside()
        val (first, second, third) = drawing.all<Circle>().filter { it.ink == Ink.PROTOTYPE }
        val now = drawing.all<Circle>().single { it.ink == Ink.EDITED }
        assertEquals(first.x - 150f, 150f - second.x, 0.01f)
        assertEquals((first.x - 150f) / 2, now.x - 150f, 0.01f)
        assertEquals(150f, third.x, 0.01f)
        assertEquals(abs(first.x - 150f) / 2, abs(third.y - 150f), 0.01f)
    }

    @Test
    fun `a map without prototypes, or on the base, can be drawn`() {
        val zero = mapOf("head.weight" to FloatTensor(listOf(3), FloatArray(3)))
        prototypeMap(emptyList(), zero to zero, null, 300f, 300f).assertInside()
        prototypeMap(listOf(zero), zero to zero, 0, 300f, 200f).assertInside()
    }

    @Test
    fun `the history's newest run is on the right, and the baseline at its height`() {
        fun entry(id: Long, p50: Double) =
            HistoryEntry(id, Instant.EPOCH, "m", "b", "t", "fp32", p50, p50, p50)
        val entries = listOf(entry(1, 100.0), entry(2, 150.0), entry(3, 120.0))
        val drawing = measurementHistory(entries, entries[0], 360f, 200f)
        drawing.assertInside()
        val points = drawing.all<Polyline>().single().points
        assertTrue(points.zipWithNext().all { (a, b) -> a.x < b.x })
        assertTrue(points[1].y < points[2].y && points[2].y < points[0].y)
        assertEquals(points[0].y, drawing.all<Line>().single { it.dashed }.y1)
        measurementHistory(entries.take(1), null, 360f, 200f).assertInside()
    }
}
