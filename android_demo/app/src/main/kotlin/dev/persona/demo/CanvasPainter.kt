package dev.persona.demo

import android.graphics.Canvas
import android.graphics.DashPathEffect
import android.graphics.Paint
import android.graphics.Path
import android.graphics.RectF
import android.graphics.Typeface
import dev.persona.demo.screen.Box
import dev.persona.demo.screen.Painter
import dev.persona.demo.screen.Spot
import dev.persona.demo.screen.Weight

/** Paints on Android's canvas; [density] turns dp into pixels. */
class CanvasPainter(private val density: Float) : Painter {
    /** Where the next calls paint. */
    var canvas = Canvas()

    private val paint = Paint(Paint.ANTI_ALIAS_FLAG)
    private val letters = Paint(Paint.ANTI_ALIAS_FLAG or Paint.SUBPIXEL_TEXT_FLAG)
    private val typefaces = mapOf(
        Weight.REGULAR to Typeface.create("sans-serif", Typeface.NORMAL),
        Weight.MEDIUM to Typeface.create("sans-serif-medium", Typeface.NORMAL),
        Weight.MONO to Typeface.MONOSPACE,
    )

    override fun width(text: String, size: Float, weight: Weight): Float =
        letters(size, weight).measureText(text) / density

    override fun rectangle(box: Box, radius: Float, colour: Int) {
        filled(colour)
        canvas.drawRoundRect(pixels(box), radius * density, radius * density, paint)
    }

    override fun outline(box: Box, radius: Float, colour: Int) {
        stroked(1f, colour)
        canvas.drawRoundRect(pixels(box), radius * density, radius * density, paint)
    }

    override fun path(points: List<Spot>, width: Float, dashed: Boolean, colour: Int) {
        stroked(width, colour)
        if (dashed) paint.pathEffect = DashPathEffect(floatArrayOf(DASH * density, DASH * density), 0f)
        val path = Path()
        points.forEachIndexed { i, point ->
            if (i == 0) path.moveTo(point.x * density, point.y * density)
            else path.lineTo(point.x * density, point.y * density)
        }
        if (points.size == 1) path.lineTo(points[0].x * density, points[0].y * density)
        canvas.drawPath(path, paint)
        paint.pathEffect = null
    }

    override fun circle(x: Float, y: Float, radius: Float, filled: Boolean, colour: Int) {
        if (filled) filled(colour) else stroked(RING, colour)
        canvas.drawCircle(x * density, y * density, radius * density, paint)
    }

    override fun text(x: Float, baseline: Float, text: String, size: Float, weight: Weight, colour: Int) {
        canvas.drawText(text, x * density, baseline * density, letters(size, weight).apply { color = colour })
    }

    private fun letters(size: Float, weight: Weight): Paint =
        letters.apply {
            textSize = size * density
            typeface = typefaces.getValue(weight)
        }

    private fun filled(colour: Int) {
        paint.style = Paint.Style.FILL
        paint.color = colour
    }

    private fun stroked(width: Float, colour: Int) {
        paint.style = Paint.Style.STROKE
        paint.strokeWidth = width * density
        paint.strokeCap = Paint.Cap.ROUND
        paint.strokeJoin = Paint.Join.ROUND
        paint.color = colour
    }

    private fun pixels(box: Box) = RectF(
        box.left * density,
        box.top * density,
        (box.left + box.width) * density,
        (box.top + box.height) * density,
    )

    private companion object {
        const val DASH = 4f
        const val RING = 2f
    }
}
