package dev.persona.drawing

import dev.persona.formats.SlotTensors
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.sqrt

private const val MARGIN = 28f
private const val STEPS = 200

/**
 * Where the running change lies among the base and the prototypes: the plane in which the
 * prototypes differ most (principal components of their changes around the base), so that nearby
 * means a similar edit.
 *
 * @param prototypes each one's change, `SLOT.SUFFIX` -> values
 * @param running what runs, prototype and edit as changes; both zero on the base
 * @param chosen the prototype that is in use, or null
 */
fun prototypeMap(
    prototypes: List<SlotTensors>,
    running: Pair<SlotTensors, SlotTensors>,
    chosen: Int?,
    width: Float,
    height: Float,
): Drawing {
    val vectors = prototypes.map(::flat)
    val own = sum(flat(running.first), flat(running.second))
    val axes = principalAxes(if (vectors.isEmpty()) listOf(own) else vectors)
    val places = vectors.map { v -> axes.map { dot(it, v) } }
    val here = axes.map { dot(it, own) }
    val reach = (places + listOf(here)).flatten().maxOfOrNull { abs(it) }?.takeIf { it > 0 } ?: 1.0
    val radius = minOf(width, height) / 2 - MARGIN
    fun point(place: List<Double>) =
        Point(
            width / 2 + (place[0] / reach * radius).toFloat(),
            height / 2 - (place[1] / reach * radius).toFloat(),
        )

    val centre = point(listOf(0.0, 0.0))
    val out = ArrayList<DrawCommand>()
    out += Line(MARGIN, centre.y, width - MARGIN, centre.y, Ink.GRID)
    out += Line(centre.x, MARGIN, centre.x, height - MARGIN, Ink.GRID)
    places.forEachIndexed { k, place ->
        val at = point(place)
        out += Circle(at.x, at.y, 9f, Ink.PROTOTYPE, filled = k == chosen)
        out += Label(at.x, at.y - 13f, "$k", Ink.TEXT, 11f, Anchor.MIDDLE)
    }
    out += Circle(centre.x, centre.y, 5f, Ink.BASE)
    out += Label(centre.x + 9f, centre.y - 7f, "base", Ink.MUTED, 11f)
    val at = point(here)
    out += Line(centre.x, centre.y, at.x, at.y, Ink.EDITED, 1.5f, dashed = true)
    out += Circle(at.x, at.y, 6f, Ink.EDITED)
    out += Label(at.x + 10f, at.y + 13f, "now", Ink.EDITED, 12f, bold = true)
    val spoken = chosen?.let { "prototype $it is in use" } ?: "no prototype is in use"
    return Drawing(width, height, out, "${prototypes.size} prototypes around the base; $spoken")
}

private fun flat(tensors: SlotTensors): FloatArray =
    tensors.values.map { it.values }.fold(FloatArray(0), FloatArray::plus)

private fun sum(one: FloatArray, other: FloatArray) = FloatArray(one.size) { one[it] + other[it] }

private fun dot(one: DoubleArray, other: FloatArray): Double {
    var sum = 0.0
    for (i in one.indices) sum += one[i] * other[i]
    return sum
}

/** Two orthonormal directions in which the vectors reach farthest; 0 where there is none. */
private fun principalAxes(vectors: List<FloatArray>): List<DoubleArray> {
    val axes = ArrayList<DoubleArray>()
    repeat(2) { axes += principalAxis(vectors, axes) }
    return axes
}

/** Power iteration on Σ v vᵀ, kept at right angles to the axes before. */
private fun principalAxis(vectors: List<FloatArray>, before: List<DoubleArray>): DoubleArray {
    val width = vectors[0].size
    val longest = vectors.maxByOrNull { length(it, before) } ?: return DoubleArray(0)
    var axis = normal(before, DoubleArray(width) { longest[it].toDouble() })
    repeat(STEPS) {
        val next = DoubleArray(width)
        for (vector in vectors) {
            val share = dot(axis, vector)
            for (i in next.indices) next[i] += share * vector[i]
        }
        axis = normal(before, next)
    }
    return axis
}

private fun length(vector: FloatArray, before: List<DoubleArray>): Double {
    val along = before.sumOf { axis -> dot(axis, vector).let { it * it } }
    return max(0.0, vector.sumOf { it.toDouble() * it } - along)
}

/** The vector without its parts along [before], of length 1; 0 where nothing is left. */
private fun normal(before: List<DoubleArray>, vector: DoubleArray): DoubleArray {
    var left = vector
    for (axis in before) {
        val along = axis.indices.sumOf { axis[it] * left[it] }
        left = DoubleArray(left.size) { left[it] - along * axis[it] }
    }
    val size = sqrt(left.sumOf { it * it })
    return if (size < 1e-12) DoubleArray(left.size) else DoubleArray(left.size) { left[it] / size }
}
