package dev.persona.demo.screen

import dev.persona.demo.R
import dev.persona.demo.session.Action
import dev.persona.demo.session.Tab

/** The bar at the foot of the app with its three screens. */
fun tabBar(open: Tab, width: Float, texts: Texts, ruler: Ruler): Screen {
    val marks = ArrayList<Mark>()
    val regions = ArrayList<Region>()
    marks += Panel(Box(0f, 0f, width, TAB_BAR_HEIGHT), Tone.CARD)
    marks += Panel(Box(0f, 0f, width, 1f), Tone.OUTLINE)
    val each = width / Tab.values().size
    for ((i, tab) in Tab.values().withIndex()) {
        val label = texts.text(tab.title)
        val middle = each * (i + 0.5f)
        val chosen = tab == open
        if (chosen) marks += Panel(Box(middle - 32f, 8f, 64f, 28f), Tone.ACCENT_TINT, 14f)
        marks += icon(tab, middle, if (chosen) Tone.ACCENT else Tone.MUTED)
        val weight = if (chosen) Weight.MEDIUM else Weight.REGULAR
        val size = ruler.fitting(label, weight, each - 8f)
        marks += Words(middle, 52f, label, size, if (chosen) Tone.ACCENT else Tone.MUTED, weight, Place.MIDDLE)
        regions += Region(
            Box(each * i, 0f, each, TAB_BAR_HEIGHT),
            Role.CHOICE,
            label,
            Action.Open(tab),
            selected = chosen,
        )
    }
    return Screen(width, TAB_BAR_HEIGHT, marks, regions)
}

private fun Ruler.fitting(label: String, weight: Weight, most: Float): Float {
    val wide = width(label, Sketch.SMALL, weight)
    return if (wide <= most) Sketch.SMALL else Sketch.SMALL * most / wide
}

private val Tab.title: Int
    get() = when (this) {
        Tab.PERSONALISE -> R.string.personalise
        Tab.MEASURE -> R.string.measure
        Tab.INSPECT -> R.string.inspect
    }

/** Signs of a few strokes: a person's slider, a clock's bars, a list. */
private fun icon(tab: Tab, x: Float, tone: Tone): List<Mark> =
    when (tab) {
        Tab.PERSONALISE -> listOf(
            Pen(listOf(Spot(x - 9f, 18f), Spot(x + 9f, 18f)), tone, 2f),
            Pen(listOf(Spot(x - 9f, 27f), Spot(x + 9f, 27f)), tone, 2f),
            Panel(Box(x - 6f, 14.5f, 7f, 7f), tone, 3.5f),
            Panel(Box(x + 1f, 23.5f, 7f, 7f), tone, 3.5f),
        )
        Tab.MEASURE -> listOf(
            Panel(Box(x - 9f, 22f, 5f, 8f), tone, 1.5f),
            Panel(Box(x - 2.5f, 14f, 5f, 16f), tone, 1.5f),
            Panel(Box(x + 4f, 18f, 5f, 12f), tone, 1.5f),
        )
        Tab.INSPECT -> listOf(15f, 22f, 29f).flatMap { y ->
            listOf(
                Panel(Box(x - 9f, y - 1.5f, 3f, 3f), tone, 1.5f),
                Pen(listOf(Spot(x - 3f, y), Spot(x + 9f, y)), tone, 2f),
            )
        }
    }

/** Height of the bar in dp. */
const val TAB_BAR_HEIGHT = 60f
