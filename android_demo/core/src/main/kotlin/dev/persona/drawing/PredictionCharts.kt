package dev.persona.drawing

/**
 * What the model says of one sample before and after the edit, choice by choice.
 *
 * @property label of a class or item
 * @property before its score from 0 to 1 by the base, and [after] by the edited model
 */
data class Choice(val label: String, val before: Float, val after: Float)

private const val ROW = 40f
private const val MARGIN = 12f
private const val BAR = 11f

/** Two bars a choice: base above, edited below. The edited model's first choice stands out. */
fun beforeAfterBars(choices: List<Choice>, width: Float): Drawing {
    require(choices.isNotEmpty()) { "there is no choice to draw" }
    val labels = width * 0.3f
    val room = width - labels - MARGIN - 44f
    val best = choices.maxByOrNull { it.after }
    val out = ArrayList<DrawCommand>()
    choices.forEachIndexed { i, choice ->
        val top = MARGIN + i * ROW
        val first = choice === best
        out +=
            Label(
                labels - 8f,
                top + BAR + 5f,
                choice.label,
                if (first) Ink.ACCENT else Ink.TEXT,
                13f,
                Anchor.END,
                bold = first,
                most = labels - 8f - MARGIN,
            )
        val bars = listOf(Ink.BASE to choice.before, Ink.EDITED to choice.after)
        bars.forEachIndexed { j, (ink, share) ->
            val y = top + j * (BAR + 3f)
            val length = maxOf(1f, room * share.coerceIn(0f, 1f))
            out += Rectangle(labels, y, labels + length, y + BAR, ink, 3f)
            out += Label(labels + length + 6f, y + BAR - 1f, percent(share), Ink.MUTED, 11f)
        }
    }
    val spoken =
        choices.joinToString(". ") {
            "${it.label}: ${percent(it.before)} before, ${percent(it.after)} after"
        }
    return Drawing(width, 2 * MARGIN + choices.size * ROW, out, spoken)
}

private fun percent(share: Float): String = "${Math.round(share * 100)} %"

/**
 * How much of its bound each slot's change uses.
 *
 * @property size largest magnitude of the change ÷ its bound, from 0 to 1
 */
data class SlotUse(val slot: String, val size: Float)

/** A bar a slot: the change that runs, against what the slot allows. */
fun slotSizes(slots: List<SlotUse>, width: Float): Drawing {
    val labels = width * 0.4f
    val room = width - labels - MARGIN - 44f
    val out = ArrayList<DrawCommand>()
    slots.forEachIndexed { i, slot ->
        val top = MARGIN + i * (ROW / 2)
        val length = room * slot.size.coerceIn(0f, 1f)
        val most = labels - 8f - MARGIN
        out += Label(labels - 8f, top + BAR, slot.slot, Ink.TEXT, 12f, Anchor.END, most = most)
        out += Rectangle(labels, top, labels + room, top + BAR, Ink.GRID, 3f)
        if (slot.size > 0) {
            out += Rectangle(labels, top, labels + maxOf(1f, length), top + BAR, Ink.EDITED, 3f)
        }
        out += Label(labels + room + 6f, top + BAR - 1f, percent(slot.size), Ink.MUTED, 11f)
    }
    val spoken = slots.joinToString(". ") { "${it.slot}: ${percent(it.size)} of its bound" }
    return Drawing(width, 2 * MARGIN + slots.size * ROW / 2, out, spoken)
}
