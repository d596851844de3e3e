package dev.persona.drawing

/** What a colour is for; the painter chooses it by its theme. */
enum class Ink {
    /** Words and figures. */
    TEXT,

    /** Words that explain. */
    MUTED,

    /** Axes and grid. */
    GRID,

    /** The base: the backbone without an edit. */
    BASE,

    /** The edited model. */
    EDITED,

    /** What is chosen or needs to be seen first. */
    ACCENT,

    /** Prototypes. */
    PROTOTYPE,
}

/** Where a label's anchor lies in its text. */
enum class Anchor {
    START,
    MIDDLE,
    END,
}

/** One thing to paint. Units are dp; x grows to the right, y down. */
sealed interface DrawCommand

/** A filled rectangle with round corners of [radius]. */
data class Rectangle(
    val left: Float,
    val top: Float,
    val right: Float,
    val bottom: Float,
    val ink: Ink,
    val radius: Float = 0f,
) : DrawCommand

/** A straight line. */
data class Line(
    val x1: Float,
    val y1: Float,
    val x2: Float,
    val y2: Float,
    val ink: Ink,
    val width: Float = 1f,
    val dashed: Boolean = false,
) : DrawCommand

/** Points joined by lines. */
data class Polyline(val points: List<Point>, val ink: Ink, val width: Float = 2f) : DrawCommand

data class Point(val x: Float, val y: Float)

/** A circle, filled or as a ring. */
data class Circle(
    val x: Float,
    val y: Float,
    val radius: Float,
    val ink: Ink,
    val filled: Boolean = true,
) : DrawCommand

/** A line of text whose base line is at [y]; a painter shortens what is wider than [most]. */
data class Label(
    val x: Float,
    val y: Float,
    val text: String,
    val ink: Ink,
    val size: Float = 12f,
    val anchor: Anchor = Anchor.START,
    val bold: Boolean = false,
    val most: Float = Float.MAX_VALUE,
) : DrawCommand

/**
 * A drawing of [width] × [height] dp: the same list for a phone's canvas and for a picture file.
 *
 * @property description what it shows, for those who do not see it
 */
class Drawing(
    val width: Float,
    val height: Float,
    val commands: List<DrawCommand>,
    val description: String,
)
