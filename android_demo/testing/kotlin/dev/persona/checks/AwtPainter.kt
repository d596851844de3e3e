package dev.persona.checks

import dev.persona.demo.screen.Box
import dev.persona.demo.screen.Painter
import dev.persona.demo.screen.Spot
import dev.persona.demo.screen.Weight
import java.awt.BasicStroke
import java.awt.Color
import java.awt.Font
import java.awt.Graphics2D
import java.awt.RenderingHints
import java.awt.geom.Ellipse2D
import java.awt.geom.Path2D
import java.awt.geom.RoundRectangle2D
import java.awt.image.BufferedImage

/** Paints on a picture, as CanvasPainter does on a phone, with the phone's own typeface if it is here. */
class AwtPainter(private val density: Float) : Painter {
    private var graphics: Graphics2D = onPicture(BufferedImage(1, 1, BufferedImage.TYPE_INT_RGB))
    private val fonts = mapOf(
        Weight.REGULAR to font("Roboto", Font.SANS_SERIF),
        Weight.MEDIUM to font("Roboto Medium", Font.SANS_SERIF),
        Weight.MONO to font("DejaVu Sans Mono", Font.MONOSPACED),
    )

    /** The next calls paint on this picture. */
    fun paintOn(picture: BufferedImage) {
        graphics = onPicture(picture)
    }

    private fun onPicture(picture: BufferedImage): Graphics2D = picture.createGraphics().apply {
        setRenderingHint(RenderingHints.KEY_ANTIALIASING, RenderingHints.VALUE_ANTIALIAS_ON)
        setRenderingHint(RenderingHints.KEY_TEXT_ANTIALIASING, RenderingHints.VALUE_TEXT_ANTIALIAS_ON)
        setRenderingHint(RenderingHints.KEY_FRACTIONALMETRICS, RenderingHints.VALUE_FRACTIONALMETRICS_ON)
        setRenderingHint(RenderingHints.KEY_STROKE_CONTROL, RenderingHints.VALUE_STROKE_PURE)
        scale(density.toDouble(), density.toDouble())
    }

    private fun font(name: String, otherwise: String): Font {
        val found = Font(name, Font.PLAIN, 1)
        return if (found.family == Font.DIALOG) Font(otherwise, Font.PLAIN, 1) else found
    }

    /** A font that has all letters of the text: the phone, too, takes another one for signs. */
    private fun letters(text: String, size: Float, weight: Weight): Font {
        val font = fonts.getValue(weight)
        val complete = if (font.canDisplayUpTo(text) < 0) font else Font("DejaVu Sans", Font.PLAIN, 1)
        return complete.deriveFont(size)
    }

    override fun width(text: String, size: Float, weight: Weight): Float =
        letters(text, size, weight).getStringBounds(text, graphics.fontRenderContext).width.toFloat()

    override fun rectangle(box: Box, radius: Float, colour: Int) {
        graphics.color = Color(colour)
        graphics.fill(shape(box, radius))
    }

    override fun outline(box: Box, radius: Float, colour: Int) {
        graphics.color = Color(colour)
        graphics.stroke = BasicStroke(1f)
        graphics.draw(shape(box, radius))
    }

    private fun shape(box: Box, radius: Float) =
        RoundRectangle2D.Float(box.left, box.top, box.width, box.height, 2 * radius, 2 * radius)

    override fun path(points: List<Spot>, width: Float, dashed: Boolean, colour: Int) {
        val path = Path2D.Float()
        points.forEachIndexed { i, point -> if (i == 0) path.moveTo(point.x, point.y) else path.lineTo(point.x, point.y) }
        if (points.size == 1) path.lineTo(points[0].x, points[0].y)
        graphics.color = Color(colour)
        val dashes = if (dashed) floatArrayOf(4f, 4f) else null
        graphics.stroke = BasicStroke(width, BasicStroke.CAP_ROUND, BasicStroke.JOIN_ROUND, 10f, dashes, 0f)
        graphics.draw(path)
    }

    override fun circle(x: Float, y: Float, radius: Float, filled: Boolean, colour: Int) {
        val circle = Ellipse2D.Float(x - radius, y - radius, 2 * radius, 2 * radius)
        graphics.color = Color(colour)
        graphics.stroke = BasicStroke(2f)
        if (filled) graphics.fill(circle) else graphics.draw(circle)
    }

    override fun text(x: Float, baseline: Float, text: String, size: Float, weight: Weight, colour: Int) {
        graphics.color = Color(colour)
        graphics.font = letters(text, size, weight)
        graphics.drawString(text, x, baseline)
    }
}
