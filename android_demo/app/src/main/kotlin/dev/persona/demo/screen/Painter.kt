package dev.persona.demo.screen

import dev.persona.drawing.Anchor
import dev.persona.drawing.Circle
import dev.persona.drawing.Label
import dev.persona.drawing.Line
import dev.persona.drawing.Polyline
import dev.persona.drawing.Rectangle

/** How wide a text is. Layout asks; nothing else depends on fonts. */
interface Ruler {
    /** Width in dp. */
    fun width(text: String, size: Float, weight: Weight): Float
}

/** A surface that can paint; one on Android's canvas, one on java.awt. Units are dp. */
interface Painter : Ruler {
    fun rectangle(box: Box, radius: Float, colour: Int)

    fun outline(box: Box, radius: Float, colour: Int)

    fun path(points: List<Spot>, width: Float, dashed: Boolean, colour: Int)

    fun circle(x: Float, y: Float, radius: Float, filled: Boolean, colour: Int)

    fun text(x: Float, baseline: Float, text: String, size: Float, weight: Weight, colour: Int)
}

/** Paints a screen's marks in their order. */
fun Painter.paint(marks: List<Mark>, palette: Palette) {
    for (mark in marks) {
        when (mark) {
            is Panel ->
                if (mark.outlined) outline(mark.box, mark.radius, palette.argb(mark.tone))
                else rectangle(mark.box, mark.radius, palette.argb(mark.tone))
            is Words -> words(mark, palette)
            is Pen -> path(mark.points, mark.width, false, palette.argb(mark.tone))
            is Pixel -> rectangle(mark.box, 0f, palette.shade(mark.shade))
            is Placed -> placed(mark, palette)
        }
    }
}

private fun Painter.words(mark: Words, palette: Palette) {
    val shift = when (mark.place) {
        Place.START -> 0f
        Place.MIDDLE -> width(mark.text, mark.size, mark.weight) / 2
        Place.END -> width(mark.text, mark.size, mark.weight)
    }
    text(mark.x - shift, mark.baseline, mark.text, mark.size, mark.weight, palette.argb(mark.tone))
}

private fun Painter.placed(mark: Placed, palette: Palette) {
    val (dx, dy) = mark.dx to mark.dy
    when (val command = mark.command) {
        is Rectangle -> {
            val box = Box(
                command.left + dx,
                command.top + dy,
                command.right - command.left,
                command.bottom - command.top,
            )
            rectangle(box, command.radius, palette.argb(command.ink.tone()))
        }
        is Line -> {
            val ends = listOf(Spot(command.x1 + dx, command.y1 + dy), Spot(command.x2 + dx, command.y2 + dy))
            path(ends, command.width, command.dashed, palette.argb(command.ink.tone()))
        }
        is Polyline -> {
            val points = command.points.map { Spot(it.x + dx, it.y + dy) }
            path(points, command.width, false, palette.argb(command.ink.tone()))
        }
        is Circle ->
            circle(
                command.x + dx,
                command.y + dy,
                command.radius,
                command.filled,
                palette.argb(command.ink.tone()),
            )
        is Label -> words(label(command, dx, dy), palette)
    }
}

private fun Ruler.label(command: Label, dx: Float, dy: Float): Words {
    val weight = if (command.bold) Weight.MEDIUM else Weight.REGULAR
    val place = when (command.anchor) {
        Anchor.START -> Place.START
        Anchor.MIDDLE -> Place.MIDDLE
        Anchor.END -> Place.END
    }
    val text = shortened(command.text, command.size, weight, command.most)
    return Words(command.x + dx, command.y + dy, text, command.size, command.ink.tone(), weight, place)
}

/** The text, or as much of its beginning as fits with an ellipsis. */
internal fun Ruler.shortened(text: String, size: Float, weight: Weight, most: Float): String {
    if (width(text, size, weight) <= most) return text
    var kept = text
    while (kept.isNotEmpty() && width("$kept…", size, weight) > most) kept = kept.dropLast(1)
    return "$kept…"
}

/** The text in lines that fit, broken at spaces, and within words that are longer than a line. */
internal fun Ruler.wrapped(text: String, size: Float, weight: Weight, most: Float): List<String> {
    val lines = ArrayList<String>()
    var line = ""
    for (word in text.split(' ')) {
        val longer = if (line.isEmpty()) word else "$line $word"
        if (width(longer, size, weight) <= most) {
            line = longer
            continue
        }
        if (line.isNotEmpty()) lines += line
        line = word
        while (width(line, size, weight) > most) {
            val fits = (line.length - 1 downTo 1).first { it == 1 || width(line.take(it), size, weight) <= most }
            lines += line.take(fits)
            line = line.drop(fits)
        }
    }
    return lines + line
}
