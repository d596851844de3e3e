package dev.persona.demo

import android.app.Activity
import android.content.Intent
import android.content.res.Configuration
import android.graphics.drawable.ColorDrawable
import android.os.Bundle
import android.view.inputmethod.InputMethodManager
import android.widget.LinearLayout
import android.widget.ScrollView
import dev.persona.demo.screen.Palette
import dev.persona.demo.screen.Sketch
import dev.persona.demo.screen.Tone
import dev.persona.demo.screen.inspectScreen
import dev.persona.demo.screen.measureScreen
import dev.persona.demo.screen.personaliseScreen
import dev.persona.demo.screen.tabBar
import dev.persona.demo.session.Action
import dev.persona.demo.session.Endpoint
import dev.persona.demo.session.MeasuringState
import dev.persona.demo.session.Snapshot
import dev.persona.demo.session.Stroke
import dev.persona.demo.session.Tab

/** The app's one window: a screen that scrolls, over a bar with the three of them. */
class MainActivity : Activity(), ScreenView.Asked {
    private val demo: DemoApplication
        get() = application as DemoApplication

    private val heard: (Snapshot) -> Unit = { show(it) }
    private lateinit var content: ScreenView
    private lateinit var bar: ScreenView
    private lateinit var scroll: ScrollView
    private var tab = Tab.PERSONALISE

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val night = resources.configuration.uiMode and Configuration.UI_MODE_NIGHT_MASK == Configuration.UI_MODE_NIGHT_YES
        val palette = if (night) Palette.DARK else Palette.LIGHT
        content = ScreenView(this, palette, this)
        bar = ScreenView(this, palette, this)
        scroll = ScrollView(this).apply {
            id = R.id.scroll
            addView(content)
        }
        val root = LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            fitsSystemWindows = true
            background = ColorDrawable(palette.argb(Tone.BACKGROUND))
            val fill = LinearLayout.LayoutParams.MATCH_PARENT
            addView(scroll, LinearLayout.LayoutParams(fill, 0, 1f))
            addView(bar, LinearLayout.LayoutParams(fill, LinearLayout.LayoutParams.WRAP_CONTENT))
        }
        setContentView(root)
        savedInstanceState?.let {
            tab = Tab.values()[it.getInt(TAB)]
            content.entered = it.getString(ENTERED).orEmpty()
        }
        if (savedInstanceState == null) connected(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        connected(intent)
    }

    /** A scanned code or another link opened the app; the screen asks whether to follow it. */
    private fun connected(intent: Intent) {
        val link = intent.dataString ?: return
        if (intent.action == Intent.ACTION_VIEW && link.startsWith(Endpoint.LINK_SCHEME)) {
            tab = Tab.PERSONALISE
            demo.session.offer(link)
        }
    }

    override fun onStart() {
        super.onStart()
        demo.listen(heard)
    }

    override fun onStop() {
        demo.leave(heard)
        super.onStop()
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putInt(TAB, tab.ordinal)
        outState.putString(ENTERED, content.entered)
    }

    private fun show(snapshot: Snapshot) {
        // A screen that goes dark lowers the clocks that are being measured.
        content.keepScreenOn = snapshot.measuring is MeasuringState.Busy
        val texts = AndroidTexts(resources)
        val fontScale = resources.configuration.fontScale
        content.show { width ->
            val sketch = Sketch(width, texts, content.ruler, fontScale)
            when (tab) {
                Tab.PERSONALISE -> sketch.personaliseScreen(snapshot)
                Tab.MEASURE -> sketch.measureScreen(snapshot)
                Tab.INSPECT -> sketch.inspectScreen(snapshot)
            }
            sketch.screen()
        }
        bar.show { width -> tabBar(tab, width, texts, bar.ruler) }
    }

    override fun asked(action: Action) {
        when (action) {
            is Action.Open -> {
                tab = action.tab
                scroll.scrollTo(0, 0)
                show(demo.session.snapshot)
            }
            is Action.Connect -> typed(content.entered)
            is Action.StopMeasuring -> demo.session.stopMeasuring()
            is Action.Share -> share()
            else -> demo.session.perform(action)
        }
    }

    override fun typed(text: String) {
        val keyboard = getSystemService(INPUT_METHOD_SERVICE) as InputMethodManager
        keyboard.hideSoftInputFromWindow(content.windowToken, 0)
        demo.session.connect(text)
    }

    override fun drew(strokes: List<Stroke>) = demo.session.drew(strokes)

    override fun swiped(item: Long, taken: Boolean) = demo.session.swiped(item, taken)

    /** The report as text: it has no file that another app would need a permission for. */
    private fun share() {
        val report = demo.session.report() ?: return
        val send = Intent(Intent.ACTION_SEND)
            .setType("text/plain")
            .putExtra(Intent.EXTRA_SUBJECT, getString(R.string.report_subject))
            .putExtra(Intent.EXTRA_TEXT, report)
        startActivity(Intent.createChooser(send, getString(R.string.share)))
    }

    private companion object {
        const val TAB = "tab"
        const val ENTERED = "entered"
    }
}
