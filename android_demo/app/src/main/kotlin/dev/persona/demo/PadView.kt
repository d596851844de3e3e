package dev.persona.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.Path
import android.graphics.RectF
import android.view.MotionEvent
import android.view.View
import dev.persona.demo.screen.Palette
import dev.persona.demo.screen.Tone
import dev.persona.demo.session.Point
import dev.persona.demo.session.Stroke

/**
 * Where digits are drawn. A digit is done when the finger has been away for a moment, so that those
 * of two strokes come whole.
 */
@SuppressLint("ViewConstructor")
class PadView(
    context: Context,
    private val density: Float,
    palette: Palette,
    private val drawn: (List<Stroke>) -> Unit,
) : View(context) {
    private val strokes = ArrayList<ArrayList<Point>>()
    private val done = Runnable { finish() }
    private val paint = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        style = Paint.Style.STROKE
        strokeCap = Paint.Cap.ROUND
        strokeJoin = Paint.Join.ROUND
        strokeWidth = PEN * density
        color = palette.argb(Tone.ACCENT)
    }
    private val ground = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = palette.argb(Tone.FIELD) }

    // Drawing has no click that a screen reader could do in its place.
    @SuppressLint("ClickableViewAccessibility")
    override fun onTouchEvent(event: MotionEvent): Boolean {
        when (event.actionMasked) {
            MotionEvent.ACTION_DOWN -> {
                parent.requestDisallowInterceptTouchEvent(true)
                removeCallbacks(done)
                strokes += ArrayList<Point>()
                add(event.x, event.y)
            }
            MotionEvent.ACTION_MOVE -> {
                for (i in 0 until event.historySize) add(event.getHistoricalX(i), event.getHistoricalY(i))
                add(event.x, event.y)
            }
            MotionEvent.ACTION_UP, MotionEvent.ACTION_CANCEL -> postDelayed(done, PAUSE_MS)
        }
        invalidate()
        return true
    }

    private fun add(x: Float, y: Float) {
        strokes.lastOrNull()?.add(Point(x / width, y / height))
    }

    private fun finish() {
        val finished = strokes.map { it.toList() }
        strokes.clear()
        invalidate()
        if (finished.isNotEmpty()) drawn(finished)
    }

    override fun onDetachedFromWindow() {
        removeCallbacks(done)
        super.onDetachedFromWindow()
    }

    override fun onDraw(canvas: Canvas) {
        // The digit before goes as soon as a new one is begun.
        val corner = CORNER * density
        if (strokes.isNotEmpty()) canvas.drawRoundRect(RectF(0f, 0f, width.toFloat(), height.toFloat()), corner, corner, ground)
        for (stroke in strokes) {
            val path = Path()
            path.moveTo(stroke[0].x * width, stroke[0].y * height)
            for (point in stroke) path.lineTo(point.x * width, point.y * height)
            canvas.drawPath(path, paint)
        }
    }

    private companion object {
        const val PEN = 9f
        const val CORNER = 14f
        const val PAUSE_MS = 700L
    }
}
