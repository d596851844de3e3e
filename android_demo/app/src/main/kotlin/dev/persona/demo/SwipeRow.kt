package dev.persona.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.os.Bundle
import android.view.MotionEvent
import android.view.View
import android.view.ViewConfiguration
import android.view.accessibility.AccessibilityNodeInfo
import dev.persona.demo.screen.Palette
import dev.persona.demo.screen.Tone
import kotlin.math.abs

/** A row that is swiped away: to the right it is taken, to the left passed over. */
@SuppressLint("ViewConstructor")
class SwipeRow(
    context: Context,
    private val palette: Palette,
    private val swiped: (SwipeRow, Boolean) -> Unit,
) : View(context) {
    private val slop = ViewConfiguration.get(context).scaledTouchSlop
    private val paint = Paint(Paint.ANTI_ALIAS_FLAG)
    private var startX = 0f
    private var moved = 0f

    init {
        isFocusable = true
        // A tap or the enter key takes, so that nobody needs to swipe.
        setOnClickListener { swiped(this, true) }
    }

    @SuppressLint("ClickableViewAccessibility")
    override fun onTouchEvent(event: MotionEvent): Boolean {
        when (event.actionMasked) {
            MotionEvent.ACTION_DOWN -> startX = event.x
            MotionEvent.ACTION_MOVE -> {
                moved = event.x - startX
                if (abs(moved) > slop) parent.requestDisallowInterceptTouchEvent(true)
            }
            MotionEvent.ACTION_UP -> {
                val end = moved
                moved = 0f
                when {
                    abs(end) > width * ENOUGH -> swiped(this, end > 0)
                    abs(end) <= slop -> performClick()
                }
            }
            MotionEvent.ACTION_CANCEL -> moved = 0f
        }
        invalidate()
        return true
    }

    /** How far the finger is: from the left to take, from the right to pass over. */
    override fun onDraw(canvas: Canvas) {
        if (abs(moved) <= slop) return
        paint.color = palette.argb(if (moved > 0) Tone.GOOD else Tone.WARNING)
        paint.alpha = VEIL
        val reach = minOf(abs(moved), width.toFloat())
        val left = if (moved > 0) 0f else width - reach
        canvas.drawRect(left, 0f, left + reach, height.toFloat(), paint)
    }

    override fun onInitializeAccessibilityNodeInfo(info: AccessibilityNodeInfo) {
        super.onInitializeAccessibilityNodeInfo(info)
        info.addAction(AccessibilityNodeInfo.AccessibilityAction(R.id.take, resources.getString(R.string.take)))
        info.addAction(AccessibilityNodeInfo.AccessibilityAction(R.id.pass_over, resources.getString(R.string.pass_over)))
    }

    override fun performAccessibilityAction(action: Int, arguments: Bundle?): Boolean {
        if (action != R.id.take && action != R.id.pass_over) return super.performAccessibilityAction(action, arguments)
        swiped(this, action == R.id.take)
        return true
    }

    private companion object {
        /** Share of the width after which a swipe counts. */
        const val ENOUGH = 0.25f

        /** How opaque the mark under the finger is, of 255. */
        const val VEIL = 70
    }
}
