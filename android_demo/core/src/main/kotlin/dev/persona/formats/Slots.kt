package dev.persona.formats

/** How a slot is edited: all weights, two thin factors, or a scale and shift a channel. */
enum class SlotKind(val text: String) {
    DENSE("dense"),
    LOW_RANK("low-rank"),
    AFFINE("affine"),
}

/** Every tensor suffix that a slot of any kind may have. A tensor is named `SLOT.SUFFIX`. */
internal val SUFFIXES = listOf("weight", "a", "b", "scale", "shift", "bias")

/** `SLOT.SUFFIX` -> values. */
typealias SlotTensors = Map<String, FloatTensor>

/**
 * One editable slot of a bundle.
 *
 * @property name the module's path in the backbone, such as `head.0`
 * @property rows of the weight; affine: channels
 * @property columns of the weight; affine: 0
 * @property rank of one edit; 0 unless low-rank
 * @property bound limit for each weight change (low-rank: each element of b·a; affine: the scale)
 * @property biasBound limit for each bias change (affine: the shift)
 */
data class SlotSpec(
    val name: String,
    val kind: SlotKind,
    val rows: Long,
    val columns: Long,
    val rank: Long,
    val bias: Boolean,
    val bound: Double,
    val biasBound: Double,
) {
    /** Suffix -> shape of the tensors in an edit of this slot, in the contract's order. */
    val editShapes: Map<String, List<Long>>
        get() = shapes(rank)

    /** Suffix -> shape of the tensors that a program takes: an edit's, with twice the rank. */
    val feedShapes: Map<String, List<Long>>
        get() = shapes(2 * rank)

    /**
     * Suffix -> largest magnitude allowed. Low-rank factors are bounded so that their product is:
     * |a| ≤ 1 and |b| ≤ bound ÷ rank, divided in binary64.
     */
    val limits: Map<String, Float>
        get() {
            val limits = LinkedHashMap<String, Float>()
            when (kind) {
                SlotKind.DENSE -> limits["weight"] = bound.toFloat()
                SlotKind.LOW_RANK -> {
                    limits["a"] = 1f
                    limits["b"] = (bound / rank).toFloat()
                }
                SlotKind.AFFINE -> {
                    limits["scale"] = bound.toFloat()
                    limits["shift"] = biasBound.toFloat()
                }
            }
            if (bias) limits["bias"] = biasBound.toFloat()
            return limits
        }

    private fun shapes(rank: Long): Map<String, List<Long>> {
        val shapes = LinkedHashMap<String, List<Long>>()
        when (kind) {
            SlotKind.DENSE -> shapes["weight"] = listOf(rows, columns)
            SlotKind.LOW_RANK -> {
                shapes["a"] = listOf(rank, columns)
                shapes["b"] = listOf(rows, rank)
            }
            SlotKind.AFFINE -> {
                shapes["scale"] = listOf(rows)
                shapes["shift"] = listOf(rows)
            }
        }
        if (bias) shapes["bias"] = listOf(rows)
        return shapes
    }
}

/** `SLOT.SUFFIX` -> shape for every tensor of an edit, in the contract's order. */
fun List<SlotSpec>.editTensors(): Map<String, List<Long>> = named { it.editShapes }

/** `SLOT.SUFFIX` -> shape for every tensor that a program takes, in the contract's order. */
fun List<SlotSpec>.feedTensors(): Map<String, List<Long>> = named { it.feedShapes }

/** `SLOT.SUFFIX` -> largest magnitude allowed. */
internal fun List<SlotSpec>.limits(): Map<String, Float> = named { it.limits }

private fun <T> List<SlotSpec>.named(of: (SlotSpec) -> Map<String, T>): Map<String, T> {
    val all = LinkedHashMap<String, T>()
    for (slot in this) for ((suffix, value) in of(slot)) all["${slot.name}.$suffix"] = value
    return all
}

/** The edit that changes nothing. */
fun zeroEdit(slots: List<SlotSpec>): SlotTensors =
    slots.editTensors().mapValues { FloatTensor.zeros(it.value) }

/**
 * Prototype + edit, with the shapes that a program takes: low-rank factors are stacked along the
 * rank, [a_p; a_e] and [b_p, b_e], so that their product is the sum of both products.
 */
fun sumChanges(slots: List<SlotSpec>, prototype: SlotTensors, edit: SlotTensors): SlotTensors {
    val change = LinkedHashMap<String, FloatTensor>()
    for (slot in slots) {
        for ((suffix, shape) in slot.feedShapes) {
            val name = "${slot.name}.$suffix"
            val (p, e) = prototype.getValue(name).values to edit.getValue(name).values
            val values =
                when (suffix) {
                    "a" -> p + e
                    "b" -> besideEachOther(p, e, slot.rows.toInt())
                    else -> FloatArray(p.size) { p[it] + e[it] }
                }
            change[name] = FloatTensor(shape, values)
        }
    }
    return change
}

/** The rows of [left], each followed by that of [right]. */
private fun besideEachOther(left: FloatArray, right: FloatArray, rows: Int): FloatArray {
    val width = left.size / rows
    val out = FloatArray(2 * left.size)
    for (row in 0 until rows) {
        left.copyInto(out, 2 * row * width, row * width, (row + 1) * width)
        right.copyInto(out, (2 * row + 1) * width, row * width, (row + 1) * width)
    }
    return out
}

/**
 * Base + (prototype + edit) in binary32: the one sentence that every device obeys. Low-rank factors
 * pass through, for their base stays constant inside the program.
 */
fun effective(
    slots: List<SlotSpec>,
    base: SlotTensors,
    prototype: SlotTensors,
    edit: SlotTensors,
): SlotTensors {
    val lowRank = slots.filter { it.kind == SlotKind.LOW_RANK }
    val factors = lowRank.flatMap { listOf("${it.name}.a", "${it.name}.b") }
    return sumChanges(slots, prototype, edit).mapValues { (name, change) ->
        if (name in factors) change else base.getValue(name) plus change
    }
}

private infix fun FloatTensor.plus(change: FloatTensor) =
    FloatTensor(change.shape, FloatArray(values.size) { values[it] + change.values[it] })

/** Whether base + prototype + edit is the base: sums are 0, and of each product one factor is. */
fun changesNothing(slots: List<SlotSpec>, prototype: SlotTensors, edit: SlotTensors): Boolean =
    slots.all { slot ->
        val sums = slot.editShapes.keys - setOf("a", "b")
        val names = sums.map { "${slot.name}.$it" }
        names.all { name ->
            val (p, e) = prototype.getValue(name).values to edit.getValue(name).values
            p.indices.all { p[it] + e[it] == 0f }
        } &&
            (slot.kind != SlotKind.LOW_RANK ||
                listOf(prototype, edit).all { it.hasNoProduct(slot) })
    }

private fun SlotTensors.hasNoProduct(slot: SlotSpec): Boolean =
    listOf("a", "b").any { getValue("${slot.name}.$it").values.all { value -> value == 0f } }
