package dev.persona.demo.session

import dev.persona.formats.FloatTensor
import kotlin.math.max
import kotlin.math.min

/** A point of the drawing pad; both coordinates from 0 to 1, the origin at the top left. */
data class Point(val x: Float, val y: Float)

/** Where a finger went between touching the pad and leaving it. */
typealias Stroke = List<Point>

/**
 * Strokes as the image that a model of small digits takes: centred and scaled to the same size,
 * as those of the public sets are, then covered area for each pixel, from 0 to 1.
 *
 * @property channels each of them the same
 */
class DigitRaster(private val channels: Int, val height: Int, val width: Int) {
    /** [1, channels, height, width] of strokes with at least one point. */
    fun image(strokes: List<Stroke>): FloatTensor {
        val plane = plane(strokes)
        val values = FloatArray(channels * plane.size) { plane[it % plane.size] }
        return FloatTensor(listOf(1L, channels.toLong(), height.toLong(), width.toLong()), values)
    }

    private fun plane(strokes: List<Stroke>): FloatArray {
        val segments = segments(framed(strokes))
        val plane = FloatArray(height * width)
        for (row in 0 until height) {
            for (column in 0 until width) plane[row * width + column] = coverage(segments, row, column)
        }
        return plane
    }

    /** The strokes moved and scaled so that their box fills the frame, proportions kept. */
    private fun framed(strokes: List<Stroke>): List<Stroke> {
        val points = strokes.flatten()
        require(points.isNotEmpty()) { "there is nothing to draw" }
        val left = points.minOf { it.x }
        val top = points.minOf { it.y }
        val across = points.maxOf { it.x } - left
        val down = points.maxOf { it.y } - top
        val scale = FRAME / max(max(across, down), SMALLEST)
        return strokes.map { stroke ->
            stroke.map { Point(0.5f + (it.x - left - across / 2) * scale, 0.5f + (it.y - top - down / 2) * scale) }
        }
    }

    private fun segments(strokes: List<Stroke>): List<Pair<Point, Point>> =
        strokes.flatMap { stroke -> if (stroke.size == 1) listOf(stroke[0] to stroke[0]) else stroke.zipWithNext() }

    /** The share of a pixel's sub-pixels that lie within the pen's reach of a stroke. */
    private fun coverage(segments: List<Pair<Point, Point>>, row: Int, column: Int): Float {
        var covered = 0
        for (i in 0 until SUBPIXELS * SUBPIXELS) {
            val x = (column + (i % SUBPIXELS + 0.5f) / SUBPIXELS) / width
            val y = (row + (i / SUBPIXELS + 0.5f) / SUBPIXELS) / height
            if (segments.any { (from, to) -> squaredDistance(x, y, from, to) <= PEN * PEN }) covered++
        }
        return covered.toFloat() / (SUBPIXELS * SUBPIXELS)
    }

    private fun squaredDistance(x: Float, y: Float, from: Point, to: Point): Float {
        val dx = to.x - from.x
        val dy = to.y - from.y
        val length = dx * dx + dy * dy
        val along = if (length == 0f) 0f else ((x - from.x) * dx + (y - from.y) * dy) / length
        val at = max(0f, min(1f, along))
        val ex = from.x + at * dx - x
        val ey = from.y + at * dy - y
        return ex * ex + ey * ey
    }

    private companion object {
        /** Side of the box that a digit fills, of the image. */
        const val FRAME = 0.78f

        /** Half the pen's width, of the image. */
        const val PEN = 0.085f

        const val SUBPIXELS = 4

        /** A dot is not blown up. */
        const val SMALLEST = 0.2f
    }
}
