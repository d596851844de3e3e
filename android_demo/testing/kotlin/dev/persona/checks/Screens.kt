package dev.persona.checks

import dev.persona.demo.R
import dev.persona.demo.screen.Box
import dev.persona.demo.screen.Palette
import dev.persona.demo.screen.Place
import dev.persona.demo.screen.Role
import dev.persona.demo.screen.Screen
import dev.persona.demo.screen.Sketch
import dev.persona.demo.screen.TAB_BAR_HEIGHT
import dev.persona.demo.screen.Texts
import dev.persona.demo.screen.Tone
import dev.persona.demo.screen.Weight
import dev.persona.demo.screen.Words
import dev.persona.demo.screen.inspectScreen
import dev.persona.demo.screen.measureScreen
import dev.persona.demo.screen.paint
import dev.persona.demo.screen.personaliseScreen
import dev.persona.demo.screen.tabBar
import dev.persona.demo.session.Action
import dev.persona.demo.session.BundleState
import dev.persona.demo.session.MeasurePlan
import dev.persona.demo.session.MeasuringState
import dev.persona.demo.session.Point
import dev.persona.demo.session.SamplesView
import dev.persona.demo.session.Session
import dev.persona.demo.session.Snapshot
import dev.persona.demo.session.Stroke
import dev.persona.demo.session.Tab
import dev.persona.device.OnBase
import dev.persona.device.OnEdit
import dev.persona.device.OnPrototype
import dev.persona.measure.ThermalStatus
import java.awt.image.BufferedImage
import java.io.File
import java.util.Base64
import java.util.concurrent.Executor
import javax.imageio.ImageIO
import javax.xml.parsers.DocumentBuilderFactory
import kotlin.math.cos
import kotlin.math.sin
import kotlin.system.exitProcess

/**
 * The app's own session, on this machine's runtime against real clouds, and a picture of every
 * screen in the states that it goes through:
 *
 *     Screens IMAGES_CLOUD ITEMS_CLOUD PUBLISHER_KEY_OF_IMAGES STRINGS_XML FOLDER PICTURES
 *
 * Ends with 1 where a state is not the one that it should be, or a screen breaks a rule of layout.
 */
fun main(arguments: Array<String>) {
    checkAddresses()
    val (images, items, key, strings, folder) = arguments
    val gallery = Gallery(ResourceTexts(File(strings)), File(arguments[5]))
    imagesStory(gallery, images, Base64.getDecoder().decode(key), File(folder, "images"))
    itemsStory(gallery, items, File(folder, "items"))
    checkHeadless(images, File(folder, "headless"))
    println("${gallery.count} pictures of screens in ${arguments[5]}")
}

/** Runs a session's work at once, on the caller's thread. */
private val AT_ONCE = Executor { it.run() }

private fun imagesStory(gallery: Gallery, cloud: String, key: ByteArray, folder: File) {
    val phone = DesktopPhone(folder.apply { mkdirs() }, key)
    var seenBusy: Snapshot? = null
    val session = Session(phone, AT_ONCE, { if (it.measuring is MeasuringState.Busy) seenBusy = it })
    session.start()
    gallery.draw("first-start", Tab.PERSONALISE, session.snapshot)
    gallery.draw("first-start-dark", Tab.PERSONALISE, session.snapshot, Palette.DARK)
    session.offer("persona://connect?endpoint=http%3A%2F%2F192.168.1.20%3A8080")
    expect(session.snapshot.offered == "http://192.168.1.20:8080", "a link is asked about, not followed")
    gallery.draw("offered", Tab.PERSONALISE, session.snapshot)
    session.perform(Action.Answer(connect = false))
    session.connect("http://8.8.8.8:8080")
    gallery.draw("address-refused", Tab.PERSONALISE, session.snapshot)
    session.connect("http://127.0.0.1:9")
    gallery.draw("unreachable", Tab.PERSONALISE, session.snapshot)
    session.connect(cloud)
    expect(session.snapshot.running().live is OnBase, "a fetched bundle runs its base")
    gallery.draw("connected", Tab.PERSONALISE, session.snapshot)
    for (digit in listOf(3, 1, 7, 3, 1)) session.drew(strokes(digit))
    gallery.draw("drawn", Tab.PERSONALISE, session.snapshot)
    session.perform(Action.Personalise)
    expect(session.snapshot.running().live is OnEdit, "an edit came and runs")
    gallery.draw("personalised", Tab.PERSONALISE, session.snapshot)
    gallery.draw("personalised-dark", Tab.PERSONALISE, session.snapshot, Palette.DARK)
    gallery.draw("personalised-large-text", Tab.PERSONALISE, session.snapshot, fontScale = 1.6f)
    gallery.draw("personalised-landscape", Tab.PERSONALISE, session.snapshot, width = 760f)
    session.perform(Action.ToggleAutomatic)
    session.drew(strokes(7))
    gallery.draw("not-needed", Tab.PERSONALISE, session.snapshot)
    session.perform(Action.ToggleAutomatic)
    gallery.draw("inspected", Tab.INSPECT, session.snapshot)
    measured(gallery, session, phone) { seenBusy }
    val window = session.snapshot.running().samples
    expect(window is SamplesView.Drawn && window.count == 6, "the window outlives a measurement")
    offline(gallery, session)
}

private fun measured(gallery: Gallery, session: Session, phone: DesktopPhone, busy: () -> Snapshot?) {
    gallery.draw("measure", Tab.MEASURE, session.snapshot)
    session.measure(MeasurePlan(iterations = 200, warmUp = 20, coolDownSeconds = 1))
    busy()?.let { gallery.draw("measuring", Tab.MEASURE, it) }
    val done = session.snapshot.measuring as MeasuringState.Done
    expect(done.runs.size == 1, "the program that runs was measured, got ${done.failed.map { it.why }}")
    expect("XnnpackBackend" in done.runs[0].record.subject.delegates, "it names the backend that ran")
    expect(done.runs[0].record.editToActiveMs != null, "it says how long the edit took to be active")
    val valid = done.runs[0].record.validity.isValid
    if (valid) session.perform(Action.KeepAsBaseline)
    session.perform(Action.Upload)
    gallery.draw("measured", Tab.MEASURE, session.snapshot)
    gallery.draw("measured-dark", Tab.MEASURE, session.snapshot, Palette.DARK)
    phone.temperature = ThermalStatus.SEVERE
    session.measure(MeasurePlan(iterations = 50, warmUp = 5, coolDownSeconds = 0))
    phone.temperature = ThermalStatus.NONE
    val hot = session.snapshot.measuring as MeasuringState.Done
    expect(!hot.runs[0].record.validity.isValid, "a run on a phone that throttles does not count")
    gallery.draw("invalid-run", Tab.MEASURE, session.snapshot)
    expect(session.report()!!.contains("run.hot_before"), "the report says why")
}

private fun offline(gallery: Gallery, session: Session) {
    session.connect("http://127.0.0.1:9")
    session.perform(Action.Personalise)
    expect(session.snapshot.running().live is OnEdit, "offline, the edit runs on")
    gallery.draw("offline", Tab.PERSONALISE, session.snapshot)
    session.perform(Action.RollBack)
    expect(session.snapshot.running().live is OnBase, "rolled back, the base runs")
    session.perform(Action.Disconnect)
    session.perform(Action.Personalise)
    expect(session.snapshot.running().live is OnPrototype, "alone, the phone chooses a prototype")
    gallery.draw("without-cloud", Tab.PERSONALISE, session.snapshot)
}

private fun itemsStory(gallery: Gallery, cloud: String, folder: File) {
    val phone = DesktopPhone(folder.apply { mkdirs() }, publisher = null)
    val session = Session(phone, AT_ONCE, {})
    session.start()
    session.connect(cloud)
    repeat(6) {
        val rows = (session.snapshot.running().samples as SamplesView.Ranked).rows
        session.swiped(rows[1].item, taken = true)
        session.swiped(rows[4].item, taken = false)
    }
    session.perform(Action.Personalise)
    expect(session.snapshot.running().live is OnEdit, "an edit came and runs")
    gallery.draw("list", Tab.PERSONALISE, session.snapshot)
    gallery.draw("list-dark", Tab.PERSONALISE, session.snapshot, Palette.DARK)
    builtIn(gallery, session.snapshot.running().bundle.folder, File(folder, "built-in"))
    refusedEdit(session, folder, cloud)
    gallery.draw("failed-verification", Tab.INSPECT, session.snapshot)
    spoilt(folder)
    val again = Session(phone, AT_ONCE, {})
    again.start()
    expect((again.snapshot.bundle as BundleState.Refused).code == "bundle.file_changed", "a changed file is refused")
    gallery.draw("bundle-refused", Tab.INSPECT, again.snapshot)
}

/** A bundle in the app's assets runs without any cloud. */
private fun builtIn(gallery: Gallery, bundle: File, folder: File) {
    val session = Session(DesktopPhone(folder.apply { mkdirs() }, publisher = null, shipped = bundle), AT_ONCE, {})
    session.start()
    session.perform(Action.UseShippedBundle)
    expect(session.snapshot.running().live is OnBase, "the built-in bundle runs")
    gallery.draw("built-in", Tab.PERSONALISE, session.snapshot)
}

/** The kept edit with a changed byte: refused at the next start, with the code in the log. */
private fun refusedEdit(session: Session, folder: File, cloud: String) {
    val edit = File(folder, "device").listFiles()!!.single { it.name.matches(Regex("edit-\\d+\\.safetensors")) }
    val bytes = edit.readBytes()
    bytes[bytes.size - 1] = (bytes[bytes.size - 1] + 1).toByte()
    edit.writeBytes(bytes)
    session.connect(cloud)
    expect(session.snapshot.running().live is OnBase, "an edit that was changed does not run")
}

private fun spoilt(folder: File) {
    val program = File(folder, "bundles").walkTopDown().first { it.extension == "pte" }
    program.appendText("x")
}

private fun Snapshot.running() = (bundle as BundleState.Open).running

internal fun expect(holds: Boolean, what: String) {
    if (!holds) {
        System.err.println("expected: $what")
        exitProcess(1)
    }
}

/** Digits as a finger might draw them. */
private fun strokes(digit: Int): List<Stroke> {
    fun line(vararg at: Float) = at.toList().chunked(2).map { (x, y) -> Point(x, y) }
    fun arc(x: Float, y: Float, r: Float, from: Double, to: Double) = (0..20).map {
        val angle = Math.toRadians(from + (to - from) * it / 20)
        Point(x + r * cos(angle).toFloat(), y + r * sin(angle).toFloat())
    }
    return when (digit) {
        1 -> listOf(line(.40f, .30f, .54f, .18f, .52f, .82f))
        3 -> listOf(arc(.48f, .34f, .16f, -150.0, 90.0) + arc(.48f, .66f, .17f, -90.0, 140.0))
        else -> listOf(line(.30f, .20f, .70f, .20f, .46f, .82f), line(.38f, .52f, .64f, .50f))
    }
}

/** Words from the app's own resources. */
private class ResourceTexts(file: File) : Texts {
    private val words: Map<String, String>
    private val names = R.string::class.java.fields.associate { it.getInt(null) to it.name }

    init {
        val strings = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(file).getElementsByTagName("string")
        words = (0 until strings.length).map { strings.item(it) }
            .associate { it.attributes.getNamedItem("name").nodeValue to it.textContent.replace("\\'", "'") }
    }

    override fun text(id: Int, vararg values: Any): String =
        words.getValue(names.getValue(id)).let { if (values.isEmpty()) it else String.format(it, *values) }
}

/** Draws screens into picture files, and holds them against the rules of layout. */
private class Gallery(private val texts: Texts, private val folder: File) {
    private val painter = AwtPainter(DENSITY)
    var count = 0
        private set

    fun draw(
        name: String,
        tab: Tab,
        snapshot: Snapshot,
        palette: Palette = Palette.LIGHT,
        width: Float = WIDTH,
        fontScale: Float = 1f,
    ) {
        val sketch = Sketch(width, texts, painter, fontScale)
        when (tab) {
            Tab.PERSONALISE -> sketch.personaliseScreen(snapshot)
            Tab.MEASURE -> sketch.measureScreen(snapshot)
            Tab.INSPECT -> sketch.inspectScreen(snapshot)
        }
        val screen = sketch.screen()
        check(name, screen)
        val height = screen.height + TAB_BAR_HEIGHT
        val picture = BufferedImage((width * DENSITY).toInt(), (height * DENSITY).toInt(), BufferedImage.TYPE_INT_RGB)
        painter.paintOn(picture)
        painter.rectangle(Box(0f, 0f, width, height), 0f, palette.argb(Tone.BACKGROUND))
        painter.paint(screen.marks, palette)
        fields(screen, palette)
        val bar = picture.getSubimage(0, (screen.height * DENSITY).toInt(), picture.width, (TAB_BAR_HEIGHT * DENSITY).toInt())
        painter.paintOn(bar)
        painter.paint(tabBar(tab, width, texts, painter).marks, palette)
        folder.mkdirs()
        ImageIO.write(picture, "png", File(folder, "$name.png"))
        count++
    }

    /** What the phone's text fields show while they are empty. */
    private fun fields(screen: Screen, palette: Palette) {
        for (region in screen.regions.filter { it.role == Role.FIELD }) {
            val baseline = region.box.top + region.box.height / 2 + Sketch.BODY * 0.36f
            painter.text(region.box.left + 14f, baseline, region.label, Sketch.BODY, Weight.REGULAR, palette.argb(Tone.MUTED))
        }
    }

    /** Nothing leaves the screen, everything is named, and what is pressed is large enough. */
    private fun check(name: String, screen: Screen) {
        for (words in screen.marks.filterIsInstance<Words>()) {
            val wide = painter.width(words.text, words.size, words.weight)
            val start = words.x - when (words.place) {
                Place.START -> 0f
                Place.MIDDLE -> wide / 2
                Place.END -> wide
            }
            expect(start >= 0 && start + wide <= screen.width, "$name: '${words.text}' is within the screen")
        }
        for (region in screen.regions) {
            val box = region.box
            expect(box.left >= 0 && box.left + box.width <= screen.width + 0.5f, "$name: '${region.label}' is within the screen")
            expect(box.top + box.height <= screen.height, "$name: '${region.label}' is above the end")
            expect(region.label.isNotBlank(), "$name: every region has words for a screen reader")
            val pressed = region.role in listOf(Role.BUTTON, Role.CHOICE, Role.SWITCH, Role.ITEM, Role.FIELD)
            expect(!pressed || box.height >= SMALLEST, "$name: '${region.label}' is ${box.height} dp high, a finger needs $SMALLEST")
        }
    }

    private companion object {
        const val WIDTH = 384f
        const val DENSITY = 1.5f
        const val SMALLEST = 48f
    }
}
