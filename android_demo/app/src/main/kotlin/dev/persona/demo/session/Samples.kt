package dev.persona.demo.session

import dev.persona.device.Bundle
import dev.persona.device.Device
import dev.persona.device.Window
import dev.persona.formats.FloatTensor
import dev.persona.formats.LongTensor
import dev.persona.formats.PortValue
import kotlin.math.exp

/** What the live samples show at one moment. */
sealed interface SamplesView {
    /** Samples in the window. */
    val count: Int

    /** Drawn digits, newest first; at most [Samples.RECENT]. */
    data class Drawn(override val count: Int, val recent: List<Judged>) : SamplesView

    /** A list as it is ranked now, and what was taken so far, newest last. */
    data class Ranked(
        override val count: Int,
        val taken: List<Long>,
        val rows: List<RankedItem>,
    ) : SamplesView

    /** The bundle's golden inputs, one by one. */
    data class Recorded(override val count: Int, val all: Int, val recent: List<Judged>) : SamplesView
}

/**
 * One sample with what the base and the live model make of it.
 *
 * @property strokes as drawn; empty where it was not
 * @property before what the base makes of it, null where the program has no baked base
 * @property after what runs now
 */
data class Judged(
    val input: PortValue,
    val strokes: List<Stroke>,
    val before: FloatArray?,
    val after: FloatArray,
)

/** A candidate's place in the list, from 1; [before] by the base. */
data class RankedItem(val item: Long, val before: Int?, val now: Int)

/** Both models' answers: the base's, where the program brings it, and the live one's. */
class Judge(private val device: Device, private val hasBase: Boolean) {
    fun base(inputs: List<PortValue>): FloatArray? = if (hasBase) device.predictBase(inputs).values else null

    fun live(inputs: List<PortValue>): FloatArray = device.predict(inputs).values
}

/** The window of live samples, and both models' answers to them. */
sealed class Samples(protected var judge: Judge) {
    /** What a person sees. */
    abstract val view: SamplesView

    /** The window as it is observed; null while it is empty. */
    abstract val window: Window?

    /** Judges everything shown anew, after the live model changed. */
    abstract fun refresh()

    /** Empties the window. */
    abstract fun forget()

    /** The same window before another engine. */
    fun judgeWith(other: Judge) {
        judge = other
        refresh()
    }

    /** Digits drawn with a finger. */
    class Drawn(judge: Judge, private val raster: DigitRaster) : Samples(judge) {
        private val images = ArrayList<FloatTensor>()
        private var recent = emptyList<Judged>()

        override val view: SamplesView
            get() = SamplesView.Drawn(images.size, recent)

        override val window: Window?
            get() = if (images.isEmpty()) null else Window.Samples(listOf(stacked(images)))

        fun add(strokes: List<Stroke>) {
            val image = raster.image(strokes)
            images += image
            recent = (listOf(judged(image, strokes)) + recent).take(RECENT)
        }

        override fun refresh() {
            recent = recent.map { judged(it.input as FloatTensor, it.strokes) }
        }

        override fun forget() {
            images.clear()
            recent = emptyList()
        }

        private fun judged(image: FloatTensor, strokes: List<Stroke>): Judged {
            val inputs = listOf(image)
            val before = judge.base(inputs)?.let(::softmax)
            return Judged(image, strokes, before, softmax(judge.live(inputs)))
        }
    }

    /** A list of items, of which some are taken. Chosen in turn from a fixed shuffle. */
    class Ranked(judge: Judge, private val items: LiveInput.Items) : Samples(judge) {
        private val taken = ArrayList<Long>()
        private val queue = ArrayDeque((1L..items.vocabulary).shuffled(kotlin.random.Random(SHUFFLE)))
        private val shown = ArrayList<Long>()
        private var rows = emptyList<RankedItem>()

        init {
            fill()
            refresh()
        }

        override val view: SamplesView
            get() = SamplesView.Ranked(taken.size, taken.takeLast(RECENT), rows)

        override val window: Window?
            get() = if (taken.isEmpty()) null else Window.Items(taken.toLongArray())

        fun take(item: Long) {
            taken += item
            replace(item)
        }

        fun pass(item: Long) = replace(item)

        override fun refresh() {
            val inputs = listOf(history(), LongTensor(listOf(1L, shown.size.toLong()), shown.toLongArray()))
            val before = judge.base(inputs)?.let(::places)
            val now = places(judge.live(inputs))
            rows = shown.indices.map { RankedItem(shown[it], before?.get(it), now[it]) }.sortedBy { it.now }
        }

        override fun forget() {
            taken.clear()
            refresh()
        }

        private fun replace(item: Long) {
            shown -= item
            queue.addLast(item)
            fill()
            refresh()
        }

        private fun fill() {
            while (shown.size < items.shown) shown += queue.removeFirst()
        }

        /** The last items taken, with 0 in front where there are fewer than the model sees. */
        private fun history(): LongTensor {
            val last = taken.takeLast(items.history)
            val padded = List(items.history - last.size) { 0L } + last
            return LongTensor(listOf(1L, items.history.toLong()), padded.toLongArray())
        }

        /** Each candidate's place by its score, the highest first. */
        private fun places(scores: FloatArray): List<Int> {
            val order = scores.indices.sortedByDescending { scores[it] }
            return scores.indices.map { order.indexOf(it) + 1 }
        }
    }

    /** The bundle's golden inputs, for models that take neither. */
    class Recorded(judge: Judge, private val recorded: List<List<PortValue>>) : Samples(judge) {
        private var seen = 0
        private var recent = emptyList<Judged>()

        override val view: SamplesView
            get() = SamplesView.Recorded(seen, recorded.size, recent)

        override val window: Window?
            get() = if (seen == 0) null else Window.Samples(recorded[0].indices.map(::stackedPort))

        fun next() {
            val inputs = recorded[seen++ % recorded.size]
            recent = (listOf(judged(inputs)) + recent).take(RECENT)
        }

        override fun refresh() {
            recent = (1..recent.size).map { judged(recorded[(seen - it) % recorded.size]) }
        }

        override fun forget() {
            seen = 0
            recent = emptyList()
        }

        companion object {
            fun of(bundle: Bundle, judge: Judge): Recorded {
                val ports = bundle.manifest.inputs
                return Recorded(judge, bundle.golden.inputs.map { golden -> ports.map { golden.getValue(it.name) } })
            }
        }

        private fun judged(inputs: List<PortValue>) =
            Judged(inputs[0], emptyList(), judge.base(inputs)?.let(::softmax), softmax(judge.live(inputs)))

        private fun stackedPort(port: Int): FloatTensor =
            stacked((0 until seen).map { recorded[it % recorded.size][port] as FloatTensor })
    }

    companion object {
        /** How many samples are shown. */
        const val RECENT = 5

        private const val SHUFFLE = 7

        /** The samples for what a person can give this bundle. */
        fun of(bundle: Bundle, judge: Judge): Samples =
            when (val live = LiveInput.of(bundle.manifest)) {
                is LiveInput.Drawn -> Drawn(judge, live.raster)
                is LiveInput.Items -> Ranked(judge, live)
                is LiveInput.Recorded -> Recorded.of(bundle, judge)
            }
    }
}

/** Single samples [1, …] as one batch [n, …]. */
private fun stacked(samples: List<FloatTensor>): FloatTensor {
    val size = samples[0].values.size
    val values = FloatArray(samples.size * size)
    samples.forEachIndexed { i, sample -> sample.values.copyInto(values, i * size) }
    return FloatTensor(listOf(samples.size.toLong()) + samples[0].shape.drop(1), values)
}

/** Scores as probabilities. */
internal fun softmax(scores: FloatArray): FloatArray {
    val most = scores.maxOrNull() ?: return scores
    val powers = scores.map { exp((it - most).toDouble()) }
    val sum = powers.sum()
    return FloatArray(scores.size) { (powers[it] / sum).toFloat() }
}
