package dev.persona.demo.screen

import dev.persona.drawing.DrawCommand
import dev.persona.drawing.Ink

/** What a colour of a screen is for; [Palette] chooses it by the theme. */
enum class Tone {
    BACKGROUND,
    CARD,
    FIELD,
    OUTLINE,
    TEXT,
    MUTED,
    ACCENT,
    ON_ACCENT,
    ACCENT_TINT,
    GOOD,
    GOOD_TINT,
    WARNING,
    WARNING_TINT,
    BAD,
    BAD_TINT,
    BASE,
    EDITED,
    PROTOTYPE,
    GRID,
    DISABLED,
}

/** The tone of a chart's ink. */
internal fun Ink.tone(): Tone =
    when (this) {
        Ink.TEXT -> Tone.TEXT
        Ink.MUTED -> Tone.MUTED
        Ink.GRID -> Tone.GRID
        Ink.BASE -> Tone.BASE
        Ink.EDITED -> Tone.EDITED
        Ink.ACCENT -> Tone.ACCENT
        Ink.PROTOTYPE -> Tone.PROTOTYPE
    }

/** How heavy letters are; figures of one width for tables of digits. */
enum class Weight {
    REGULAR,
    MEDIUM,
    MONO,
}

/** One thing to paint on a screen, in dp. */
sealed interface Mark

/** A rectangle with round corners, filled or as an outline. */
data class Panel(
    val box: Box,
    val tone: Tone,
    val radius: Float = 0f,
    val outlined: Boolean = false,
) : Mark

/** A line of text; [x] is its start, its middle or its end. */
data class Words(
    val x: Float,
    val baseline: Float,
    val text: String,
    val size: Float,
    val tone: Tone,
    val weight: Weight = Weight.REGULAR,
    val place: Place = Place.START,
) : Mark

enum class Place {
    START,
    MIDDLE,
    END,
}

/** Points joined by lines with round ends, as a pen draws them. */
data class Pen(val points: List<Spot>, val tone: Tone, val width: Float) : Mark

/** A place on a screen, in dp. */
data class Spot(val x: Float, val y: Float)

/** A grey value of an image, as a square. [shade] from 0, the background, to 1. */
data class Pixel(val box: Box, val shade: Float) : Mark

/** A command of a chart, moved to where the chart stands. */
data class Placed(val command: DrawCommand, val dx: Float, val dy: Float) : Mark

/** A whole screen: what is painted, and what can be touched or is read aloud. */
class Screen(
    val width: Float,
    val height: Float,
    val marks: List<Mark>,
    val regions: List<Region>,
)
