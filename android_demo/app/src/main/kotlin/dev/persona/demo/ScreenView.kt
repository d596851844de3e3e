package dev.persona.demo

import android.content.Context
import android.content.res.ColorStateList
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.drawable.ColorDrawable
import android.graphics.drawable.RippleDrawable
import android.text.InputType
import android.util.TypedValue
import android.view.View
import android.view.ViewGroup
import android.view.accessibility.AccessibilityNodeInfo
import android.view.inputmethod.EditorInfo
import android.widget.Button
import android.widget.EditText
import android.widget.Switch
import android.widget.ToggleButton
import dev.persona.demo.screen.Palette
import dev.persona.demo.screen.Region
import dev.persona.demo.screen.Role
import dev.persona.demo.screen.Screen
import dev.persona.demo.screen.Sketch
import dev.persona.demo.screen.Tone
import dev.persona.demo.screen.paint
import dev.persona.demo.session.Action
import dev.persona.demo.session.Stroke

/**
 * Paints a screen's draw list, and lays a platform view over each of its regions: so fingers,
 * keyboards and screen readers find what eyes see. Views are kept where a screen changes little.
 */
class ScreenView(context: Context, private val palette: Palette, private val asked: Asked) : ViewGroup(context) {
    /** What a person does on a screen. */
    interface Asked {
        fun asked(action: Action)

        fun typed(text: String)

        fun drew(strokes: List<Stroke>)

        fun swiped(item: Long, taken: Boolean)
    }

    private val density = resources.displayMetrics.density
    private val painter = CanvasPainter(density)
    private var laidOut: ((width: Float) -> Screen)? = null
    private var screen = Screen(0f, 0f, emptyList(), emptyList())

    /** What the field holds. */
    var entered: String = ""

    init {
        setWillNotDraw(false)
    }

    /** Measures text as it is painted. */
    val ruler: CanvasPainter
        get() = painter

    /** Shows what [layout] makes for this view's width. */
    fun show(layout: (width: Float) -> Screen) {
        laidOut = layout
        requestLayout()
        if (width > 0) use(layout(width / density))
        invalidate()
    }

    private fun use(next: Screen) {
        screen = next
        next.regions.forEachIndexed { i, region ->
            val kept = getChildAt(i)
            if (kept != null && (kept.getTag(R.id.region) as Region).sameKind(region)) {
                describe(kept, region)
            } else {
                if (kept != null) removeViewAt(i)
                addView(made(region), i)
            }
        }
        while (childCount > next.regions.size) removeViewAt(childCount - 1)
    }

    private fun Region.sameKind(other: Region) =
        role == other.role && action?.javaClass == other.action?.javaClass

    private fun made(region: Region): View {
        val view = when (region.role) {
            Role.HEADING, Role.TEXT -> View(context)
            Role.FIELD -> field(region)
            Role.PAD -> PadView(context, density, palette, asked::drew)
            Role.ITEM -> SwipeRow(context, palette) { row, taken ->
                (current(row).action as? Action.Swipe)?.let { asked.swiped(it.item, taken) }
            }
            Role.BUTTON, Role.CHOICE, Role.SWITCH -> pressed()
        }
        describe(view, region)
        return view
    }

    private fun current(view: View) = view.getTag(R.id.region) as Region

    private fun pressed() = View(context).apply {
        isFocusable = true
        background = RippleDrawable(
            ColorStateList.valueOf(palette.argb(Tone.ACCENT) and RIPPLE),
            null,
            ColorDrawable(Color.WHITE),
        )
        setOnClickListener { view -> current(view).action?.let(asked::asked) }
    }

    private fun field(region: Region) = EditText(context).apply {
        background = null
        hint = region.label
        setText(entered)
        setSingleLine()
        inputType = InputType.TYPE_CLASS_TEXT or InputType.TYPE_TEXT_VARIATION_URI
        imeOptions = EditorInfo.IME_ACTION_GO
        setTextColor(palette.argb(Tone.TEXT))
        setHintTextColor(palette.argb(Tone.MUTED))
        setTextSize(TypedValue.COMPLEX_UNIT_SP, Sketch.BODY)
        val side = (FIELD_PADDING * density).toInt()
        setPadding(side, 0, side, 0)
        addTextChangedListener(Typed { entered = it })
        setOnEditorActionListener { view, action, _ ->
            if (action == EditorInfo.IME_ACTION_GO) asked.typed(view.text.toString())
            action == EditorInfo.IME_ACTION_GO
        }
    }

    private fun describe(view: View, region: Region) {
        view.setTag(R.id.region, region)
        view.isEnabled = region.enabled
        if (view !is EditText) view.contentDescription = region.label
        view.importantForAccessibility = IMPORTANT_FOR_ACCESSIBILITY_YES
        view.setAccessibilityDelegate(RoleDelegate)
    }

    /** Says to a screen reader what a region is. */
    private object RoleDelegate : AccessibilityDelegate() {
        override fun onInitializeAccessibilityNodeInfo(host: View, info: AccessibilityNodeInfo) {
            super.onInitializeAccessibilityNodeInfo(host, info)
            val region = host.getTag(R.id.region) as Region
            when (region.role) {
                Role.BUTTON -> info.className = Button::class.java.name
                Role.SWITCH, Role.CHOICE -> {
                    val kind = if (region.role == Role.SWITCH) Switch::class.java else ToggleButton::class.java
                    info.className = kind.name
                    info.isCheckable = true
                    info.isChecked = region.selected
                }
                Role.HEADING, Role.TEXT, Role.FIELD, Role.PAD, Role.ITEM -> Unit
            }
        }
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val width = MeasureSpec.getSize(widthMeasureSpec)
        if (width > 0 && width / density != screen.width) laidOut?.let { use(it(width / density)) }
        screen.regions.forEachIndexed { i, region ->
            getChildAt(i)?.measure(exactly(region.box.width), exactly(region.box.height))
        }
        setMeasuredDimension(width, (screen.height * density).toInt())
    }

    private fun exactly(size: Float) = MeasureSpec.makeMeasureSpec((size * density).toInt(), MeasureSpec.EXACTLY)

    override fun onLayout(changed: Boolean, left: Int, top: Int, right: Int, bottom: Int) {
        screen.regions.forEachIndexed { i, region ->
            val (x, y) = (region.box.left * density).toInt() to (region.box.top * density).toInt()
            getChildAt(i)?.run { layout(x, y, x + measuredWidth, y + measuredHeight) }
        }
    }

    override fun onDraw(canvas: Canvas) {
        painter.canvas = canvas
        painter.paint(screen.marks, palette)
    }

    private companion object {
        const val RIPPLE = 0x33FFFFFF
        const val FIELD_PADDING = 14f
    }
}
