package dev.persona.demo.screen

import dev.persona.demo.session.Action
import dev.persona.drawing.Drawing

/** How a button stands out. */
enum class Emphasis {
    FILLED,
    TONED,
    PLAIN,
}

/**
 * Lays a screen out from top to bottom, in cards. Sizes are dp; text grows with the person's font
 * size.
 */
class Sketch(
    private val width: Float,
    private val texts: Texts,
    private val ruler: Ruler,
    private val fontScale: Float = 1f,
) {
    private val marks = ArrayList<Mark>()
    private val regions = ArrayList<Region>()
    private var left = maxOf(MARGIN, (width - WIDEST) / 2)
    private var right = width - left
    private var y = MARGIN

    /** The width that content has here. */
    val room: Float
        get() = right - left

    /** The screen as laid out so far. */
    fun screen(): Screen = Screen(width, y + MARGIN, marks.toList(), regions.toList())

    fun text(id: Int, vararg values: Any): String = texts.text(id, *values)

    fun gap(height: Float) {
        y += height
    }

    /** A card around what [content] lays out. */
    fun card(title: String? = null, tone: Tone = Tone.CARD, content: Sketch.() -> Unit) {
        val (place, top) = marks.size to y
        inset(PADDING) {
            y += PADDING
            title?.let { heading(it) }
            content()
            y += PADDING
        }
        marks.add(place, Panel(Box(left, top, room, y - top), tone, CARD_RADIUS))
        y += GAP
    }

    private fun inset(by: Float, content: () -> Unit) {
        left += by
        right -= by
        content()
        left -= by
        right += by
    }

    private fun heading(title: String) {
        val top = y
        lines(title, HEADING, Tone.TEXT, Weight.MEDIUM)
        regions += Region(Box(left, top, room, y - top), Role.HEADING, title)
        y += 6f
    }

    /** A name and a status beside it, at the top of a screen. */
    fun masthead(name: String, about: String, status: String, tone: Tone, tint: Tone) {
        val top = y
        val chip = ruler.width(status, SMALL * fontScale, Weight.MEDIUM) + 20f
        val title = ruler.shortened(name, TITLE * fontScale, Weight.MEDIUM, room - chip - 12f)
        y += TITLE * fontScale
        marks += Words(left, y, title, TITLE * fontScale, Tone.TEXT, Weight.MEDIUM)
        val height = SMALL * fontScale + 12f
        val box = Box(right - chip, y - TITLE * fontScale * 0.36f - height / 2, chip, height)
        marks += Panel(box, tint, height / 2)
        marks += Words(
            box.left + chip / 2,
            box.top + height / 2 + SMALL * fontScale * 0.36f,
            status,
            SMALL * fontScale,
            tone,
            Weight.MEDIUM,
            Place.MIDDLE,
        )
        y += 6f
        lines(about, SMALL, Tone.MUTED, Weight.REGULAR)
        regions += Region(Box(left, top, room, y - top), Role.HEADING, "$name. $about. $status")
        y += GAP
    }

    /** Words over as many lines as they take. */
    fun paragraph(words: String, tone: Tone = Tone.TEXT, size: Float = BODY, weight: Weight = Weight.REGULAR) {
        val top = y
        lines(words, size, tone, weight)
        regions += Region(Box(left, top, room, y - top), Role.TEXT, words)
        y += 4f
    }

    private fun lines(words: String, size: Float, tone: Tone, weight: Weight) {
        val scaled = size * fontScale
        for (line in ruler.wrapped(words, scaled, weight, room)) {
            y += scaled * LINE
            marks += Words(left, y - scaled * (LINE - 1), line, scaled, tone, weight)
        }
    }

    /** A figure that is read first, with its unit and what it is. */
    fun figure(value: String, unit: String, about: String, tone: Tone = Tone.TEXT) {
        val top = y
        val size = FIGURE * fontScale
        y += size
        marks += Words(left, y, value, size, tone, Weight.MEDIUM)
        val after = left + ruler.width(value, size, Weight.MEDIUM) + 6f
        marks += Words(after, y, unit, BODY * fontScale, Tone.MUTED)
        y += 4f
        lines(about, SMALL, Tone.MUTED, Weight.REGULAR)
        regions += Region(Box(left, top, room, y - top), Role.TEXT, "$value $unit. $about")
        y += 6f
    }

    /** A name on the left and its value on the right, or below where it is too long. */
    fun row(name: String, value: String, tone: Tone = Tone.TEXT, mono: Boolean = false) {
        val top = y
        val size = BODY * fontScale
        val weight = if (mono) Weight.MONO else Weight.REGULAR
        val valueSize = if (mono) SMALL * fontScale else size
        val fits = ruler.width(name, size, Weight.REGULAR) + ruler.width(value, valueSize, weight) + 16f <= room
        y += size * LINE
        val baseline = y - size * (LINE - 1)
        marks += Words(left, baseline, ruler.shortened(name, size, Weight.REGULAR, room), size, Tone.MUTED)
        if (fits) {
            marks += Words(right, baseline, value, valueSize, tone, weight, Place.END)
        } else {
            lines(value, if (mono) SMALL else BODY, tone, weight)
        }
        regions += Region(Box(left, top, room, y - top), Role.TEXT, "$name: $value")
        y += 3f
    }

    /** Rows of columns with a head; the first column is a name, the others are figures. */
    fun table(head: List<String>, rows: List<List<String>>, tones: List<Tone>) {
        val first = room * 0.26f
        val column = (room - first) / (head.size - 1)
        fun line(cells: List<String>, tone: (Int) -> Tone, size: Float, weight: Weight) {
            y += size * LINE + 2f
            cells.forEachIndexed { i, cell ->
                val mark =
                    if (i == 0) Words(left, y - size * (LINE - 1), cell, size, tone(0), weight)
                    else Words(left + first + column * i, y - size * (LINE - 1), cell, size, tone(i), weight, Place.END)
                marks += mark
            }
        }
        line(head, { Tone.MUTED }, SMALL * fontScale, Weight.REGULAR)
        rows.forEachIndexed { i, cells ->
            val top = y
            line(cells, { column -> if (column == 0) tones[i] else Tone.TEXT }, BODY * fontScale, Weight.REGULAR)
            val spoken = head.drop(1).zip(cells.drop(1)).joinToString { (name, cell) -> "$name $cell" }
            regions += Region(Box(left, top, room, y - top), Role.TEXT, "${cells[0]}: $spoken")
        }
        y += 8f
    }

    /** A button, as wide as the card. */
    fun button(label: String, action: Action, emphasis: Emphasis = Emphasis.FILLED, enabled: Boolean = true) {
        buttons(listOf(Choice(label, action, enabled = enabled)), emphasis)
    }

    /** Something to choose: [selected] or not. */
    class Choice(
        val label: String,
        val action: Action,
        val selected: Boolean = false,
        val enabled: Boolean = true,
    )

    /** Buttons of one width beside each other, or below where a label needs the room. */
    fun buttons(choices: List<Choice>, emphasis: Emphasis) {
        val share = (room - 8f * (choices.size - 1)) / choices.size - 24f
        val fit = choices.all { ruler.width(it.label, BODY * fontScale, Weight.MEDIUM) <= share }
        for (line in if (fit) listOf(choices) else choices.map { listOf(it) }) buttonLine(line, emphasis)
    }

    private fun buttonLine(choices: List<Choice>, emphasis: Emphasis) {
        val each = (room - 8f * (choices.size - 1)) / choices.size
        val height = maxOf(TOUCH, BODY * fontScale * 2.2f)
        y += 4f
        choices.forEachIndexed { i, choice ->
            val box = Box(left + i * (each + 8f), y, each, height)
            val (fill, ink) = when {
                !choice.enabled -> Tone.FIELD to Tone.DISABLED
                emphasis == Emphasis.FILLED -> Tone.ACCENT to Tone.ON_ACCENT
                emphasis == Emphasis.TONED -> Tone.ACCENT_TINT to Tone.ACCENT
                else -> Tone.FIELD to Tone.ACCENT
            }
            marks += Panel(box, fill, height / 2)
            centred(choice.label, box, ink)
            regions += Region(box, Role.BUTTON, choice.label, choice.action, choice.enabled)
        }
        y += height + 6f
    }

    private fun centred(words: String, box: Box, tone: Tone) {
        val size = BODY * fontScale
        val text = ruler.shortened(words, size, Weight.MEDIUM, box.width - 12f)
        val baseline = box.top + box.height / 2 + size * 0.36f
        marks += Words(box.left + box.width / 2, baseline, text, size, tone, Weight.MEDIUM, Place.MIDDLE)
    }

    /** Chips, several in a line; those that are selected stand out. */
    fun chips(about: String, choices: List<Choice>) {
        val size = BODY * fontScale
        lines(about, SMALL, Tone.MUTED, Weight.REGULAR)
        y += 4f
        var x = left
        val height = maxOf(TOUCH - 8f, size * 2f)
        for (choice in choices) {
            val wide = minOf(ruler.width(choice.label, size, Weight.MEDIUM) + 28f, room)
            if (x > left && x + wide > right) {
                x = left
                y += height + CHIP_GAP
            }
            val box = Box(x, y, wide, height)
            marks += Panel(box, if (choice.selected) Tone.ACCENT_TINT else Tone.FIELD, height / 2)
            marks += Panel(box, if (choice.selected) Tone.ACCENT else Tone.OUTLINE, height / 2, outlined = true)
            centred(choice.label, box, if (choice.selected) Tone.ACCENT else Tone.TEXT)
            regions += Region(
                Box(box.left, box.top - CHIP_GAP / 2, box.width, box.height + CHIP_GAP),
                Role.CHOICE,
                "$about: ${choice.label}",
                choice.action,
                choice.enabled,
                choice.selected,
            )
            x += wide + 8f
        }
        y += height + 8f
    }

    /** A switch with what it does. */
    fun switch(label: String, about: String, on: Boolean, action: Action) {
        val top = y
        val track = 46f
        y += 7f
        right -= track + 14f
        lines(label, BODY, Tone.TEXT, Weight.MEDIUM)
        lines(about, SMALL, Tone.MUTED, Weight.REGULAR)
        right += track + 14f
        y += 7f
        val box = Box(right - track, top + (y - top - 26f) / 2, track, 26f)
        marks += Panel(box, if (on) Tone.ACCENT else Tone.OUTLINE, 13f)
        val knob = Box(if (on) box.left + track - 23f else box.left + 3f, box.top + 3f, 20f, 20f)
        marks += Panel(knob, if (on) Tone.ON_ACCENT else Tone.CARD, 10f)
        regions += Region(Box(left, top, room, y - top), Role.SWITCH, "$label. $about", action, selected = on)
        y += 4f
    }

    /** Words that must be seen, on a tint of their own. */
    fun banner(title: String, words: String, tone: Tone, tint: Tone) {
        val (place, top) = marks.size to y
        inset(12f) {
            y += 10f
            lines(title, BODY, tone, Weight.MEDIUM)
            if (words.isNotEmpty()) lines(words, SMALL, tone, Weight.REGULAR)
            y += 10f
        }
        val box = Box(left, top, room, y - top)
        marks.add(place, Panel(box, tint, 12f))
        regions += Region(box, Role.TEXT, "$title. $words")
        y += 8f
    }

    /** How much of something is done. */
    fun progress(share: Float, about: String) {
        val top = y
        lines(about, SMALL, Tone.MUTED, Weight.REGULAR)
        y += 6f
        marks += Panel(Box(left, y, room, 6f), Tone.GRID, 3f)
        val done = room * share.coerceIn(0f, 1f)
        if (done > 0f) marks += Panel(Box(left, y, maxOf(6f, done), 6f), Tone.ACCENT, 3f)
        y += 6f
        regions += Region(Box(left, top, room, y - top), Role.TEXT, about)
        y += 10f
    }

    /** A chart of the library, as it is. */
    fun chart(drawing: Drawing) {
        drawing.commands.mapTo(marks) { Placed(it, left, y) }
        regions += Region(Box(left, y, drawing.width, drawing.height), Role.TEXT, drawing.description)
        y += drawing.height + 6f
    }

    /** A place to write one line; the phone lays a text field over it. */
    fun field(hint: String, action: Action) {
        val box = Box(left, y + 4f, room, maxOf(TOUCH, BODY * fontScale * 2.4f))
        marks += Panel(box, Tone.FIELD, 12f)
        marks += Panel(box, Tone.OUTLINE, 12f, outlined = true)
        regions += Region(box, Role.FIELD, hint, action)
        y = box.top + box.height + 8f
    }

    /** Paints [content] in a box of this height, and goes on below. */
    fun canvas(height: Float, region: Region? = null, content: Canvas.() -> Unit) {
        Canvas(Box(left, y, room, height)).content()
        region?.let { regions += it.copy(box = Box(left + it.box.left, y + it.box.top, it.box.width, it.box.height)) }
        y += height + 6f
    }

    /** Free painting; places count from the box's corner. */
    inner class Canvas(private val box: Box) {
        val width: Float
            get() = box.width

        fun panel(x: Float, top: Float, wide: Float, high: Float, tone: Tone, radius: Float, outlined: Boolean = false) {
            marks += Panel(Box(box.left + x, box.top + top, wide, high), tone, radius, outlined)
        }

        fun words(
            x: Float,
            baseline: Float,
            words: String,
            size: Float,
            tone: Tone,
            weight: Weight = Weight.REGULAR,
            place: Place = Place.START,
            most: Float = width,
        ) {
            val text = ruler.shortened(words, size * fontScale, weight, most)
            marks += Words(box.left + x, box.top + baseline, text, size * fontScale, tone, weight, place)
        }

        fun pen(points: List<Spot>, tone: Tone, width: Float) {
            marks += Pen(points.map { Spot(it.x + box.left, it.y + box.top) }, tone, width)
        }

        fun pixel(x: Float, top: Float, side: Float, shade: Float) {
            marks += Pixel(Box(box.left + x, box.top + top, side, side), shade)
        }
    }

    companion object {
        const val MARGIN = 16f

        /** Lines that are longer are hard to read. */
        const val WIDEST = 600f
        const val PADDING = 16f
        const val GAP = 12f
        const val CARD_RADIUS = 18f
        const val TITLE = 22f
        const val HEADING = 16f
        const val FIGURE = 32f
        const val BODY = 14f
        const val SMALL = 12f
        const val LINE = 1.36f
        const val CHIP_GAP = 8f

        /** The smallest that a finger hits. */
        const val TOUCH = 48f
    }
}
