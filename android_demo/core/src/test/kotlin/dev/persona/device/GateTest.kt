package dev.persona.device

import dev.persona.formats.EditInfo
import dev.persona.formats.FloatTensor
import dev.persona.formats.ItemsObservation
import dev.persona.formats.ItemsSpec
import dev.persona.formats.PooledObservation
import dev.persona.formats.PooledSpec
import dev.persona.formats.pool
import java.time.Instant
import java.util.Random
import kotlin.math.PI
import kotlin.math.sqrt
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertIs
import kotlin.test.assertTrue

class GateTest {
    private val random = Random(7)
    private val items = ItemsSpec(100, 1, 200)
    private val pooled = PooledSpec(16, 4, 2, 500, List(4) { 0.25 })

    /** A window of [n] samples whose features are normal around [mean], of classes with [mix]. */
    private fun window(
        n: Int,
        mean: Double = 0.0,
        mix: List<Double> = List(4) { 0.25 },
    ): PooledObservation {
        val x = FloatArray(n * 16) { (random.nextGaussian() + mean).toFloat() }
        val p = FloatArray(n * 4)
        for (i in 0 until n) {
            val class_ = draw(mix)
            for (c in 0 until 4) p[4 * i + c] = if (c == class_) 0.94f else 0.02f
        }
        return pool(pooled, FloatTensor(listOf(n.toLong(), 16), x), FloatTensor(listOf(n.toLong(), 4), p))
    }

    private fun draw(mix: List<Double>): Int {
        val at = random.nextDouble()
        return mix.runningReduce(Double::plus).indexOfFirst { at < it }.coerceAtLeast(0)
    }

    @Test
    fun `the same items have not drifted, and an eighth of new ones is half the limit`() {
        val told = ItemsObservation(LongArray(80) { it + 1L })
        assertEquals(0.0, Gate.drift(items, told, told))
        val now = ItemsObservation(LongArray(80) { if (it < 10) 100L else it + 1L })
        assertEquals(0.5, Gate.drift(items, told, now), 1e-6)
    }

    @Test
    fun `a quarter of new items asks, a little less does not`() {
        val told = ItemsObservation(LongArray(80) { it + 1L })
        fun decide(new: Int): GateDecision {
            val now = ItemsObservation(LongArray(80) { if (it < new) 100L else it + 1L })
            return Gate.decide(items, told, now, running = null, kept = false, Instant.EPOCH)
        }
        assertIs<GateDecision.Stay>(decide(19))
        assertEquals(AskReason.DRIFTED, assertIs<GateDecision.Ask>(decide(21)).reason)
    }

    @Test
    fun `a nanosecond less than a tenth of an edit's time is less than a tenth`() {
        val told = ItemsObservation(longArrayOf(1))
        val info = EditInfo("m", "b", "d", 1, null, Instant.EPOCH, Instant.ofEpochSecond(100))
        fun decide(now: Instant) = Gate.decide(items, told, told, info, kept = true, now)
        assertIs<GateDecision.Stay>(decide(Instant.ofEpochSecond(90)))
        val late = assertIs<GateDecision.Ask>(decide(Instant.ofEpochSecond(90, 1)))
        assertEquals(AskReason.EXPIRING, late.reason)
    }

    @Test
    fun `shares of classes are compared in double precision`() {
        fun of(vararg mix: Float): PooledObservation {
            val none = FloatTensor(listOf(16), FloatArray(16))
            val prior = FloatTensor(listOf(4), mix)
            return PooledObservation(100, none, none, prior, prior, none)
        }
        val drift = Gate.drift(pooled, of(0.1f, 0.7f, 0.1f, 0.1f), of(0.7f, 0.1f, 0.1f, 0.1f))
        val (few, many) = 0.1f.toDouble() to 0.7f.toDouble()
        val noise = 3 * sqrt(0.04 * few * (1 - few) / PI) + sqrt(0.04 * many * (1 - many) / PI)
        assertEquals((many - few - noise) / 0.25, drift, 1e-12)
    }

    @Test
    fun `windows of the same data hardly ever ask, however short they are`() {
        for (n in listOf(10, 30, 200)) {
            val drifts = List(300) { Gate.drift(pooled, window(n), window(n)) }
            val asked = drifts.count { it >= 1 }
            assertTrue(asked <= 9, "$asked of 300 windows of $n samples asked")
        }
    }

    @Test
    fun `windows whose features moved by a deviation ask`() {
        for (n in listOf(10, 30, 200)) {
            val asked = List(100) { Gate.drift(pooled, window(n), window(n, mean = 1.0)) }.count { it >= 1 }
            assertTrue(asked >= 99, "$asked of 100 windows of $n samples asked")
        }
    }

    @Test
    fun `windows of another class mix ask`() {
        val other = listOf(0.85, 0.05, 0.05, 0.05)
        val asked = List(100) { Gate.drift(pooled, window(60), window(60, mix = other)) }.count { it >= 1 }
        assertTrue(asked >= 90, "$asked of 100 asked")
    }
}
