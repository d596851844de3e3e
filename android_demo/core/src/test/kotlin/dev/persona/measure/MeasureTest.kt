package dev.persona.measure

import dev.persona.formats.JsonArray
import dev.persona.formats.JsonObject
import dev.persona.formats.JsonReal
import dev.persona.formats.JsonString
import dev.persona.formats.Precision
import dev.persona.formats.parseJson
import dev.persona.formats.write
import java.io.File
import java.time.Instant
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertIs
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir

class MeasureTest {
    @TempDir lateinit var folder: File

    /** A minute of calls that get hardly slower, unless [slower] says so. */
    private fun run(calls: Int = 100, slower: Double = 1.0, totalMs: Double = 60_000.0): InterleavedRun {
        val base = DoubleArray(calls) { 100.0 + it % 7 + (slower - 1) * 100 * it / calls }
        return InterleavedRun(base, DoubleArray(calls) { base[it] * 1.1 }, 10, totalMs)
    }

    private fun record(p50: Double = 100.0, valid: Boolean = true, target: String = "xnnpack"): BenchmarkRecord {
        val base = LatencyStatistics.of(doubleArrayOf(p50, p50, p50))
        return BenchmarkRecord(
            at = Instant.parse("2026-06-01T12:00:00Z"),
            subject = BenchmarkSubject("sasrec", "ab".repeat(32), target, Precision.FP32, listOf("XnnpackBackend")),
            host = BenchmarkHost("A phone", "Android 14", "arm64-v8a", 8, 1),
            warmUp = 10,
            base = base,
            edited = LatencyStatistics.of(doubleArrayOf(2 * p50)),
            load = LoadTimes(null, 80.0, 20.0),
            editToActiveMs = 7.5,
            memoryKb = 20_480,
            thermalBefore = ThermalStatus.NONE,
            thermalAfter = ThermalStatus.NONE,
            validity = Validity(if (valid) emptyList() else listOf(InvalidReason.HOT_AFTER)),
        )
    }

    @Test
    fun `figures are those that numpy gives`() {
        // np.mean(x), np.quantile(x, q), np.mean(np.sort(x)[2:-2]) and np.std(x, ddof=1)
        val figures =
            LatencyStatistics.of(doubleArrayOf(12.0, 3.5, 7.0, 100.0, 8.25, 9.0, 11.0, 4.0, 6.0, 5.5))
        assertEquals(10, figures.count)
        assertEquals(16.625, figures.mean, 1e-12)
        assertEquals(7.625, figures.p50, 1e-12)
        assertEquals(20.8, figures.p90, 1e-9)
        assertEquals(60.4, figures.p95, 1e-9)
        assertEquals(92.08, figures.p99, 1e-9)
        assertEquals(7.791666666666667, figures.trimmedMean, 1e-12)
        assertEquals(29.42722898194044, figures.deviation, 1e-12)
        assertEquals(3.5, figures.min)
        assertEquals(100.0, figures.max)
    }

    @Test
    fun `a single call has no deviation, and is every quantile`() {
        val figures = LatencyStatistics.of(doubleArrayOf(5.0))
        assertEquals(listOf(0.0, 5.0, 5.0, 5.0), figures.run { listOf(deviation, p50, p99, trimmedMean) })
        assertFailsWith<IllegalArgumentException> { LatencyStatistics.of(DoubleArray(0)) }
    }

    @Test
    fun `base and edited are called in turn, after a warm-up`() {
        val calls = StringBuilder()
        val run = interleaved(2, 3, 0.0, { calls.append('b') }, { calls.append('e') })
        assertEquals("bebebebebe", "$calls")
        assertEquals(listOf(3, 3), listOf(run.base.size, run.edited.size))
    }

    @Test
    fun `a run lasts as long as it must, and ends when it is told to`() {
        val long = interleaved(0, 1, 30.0, { Thread.sleep(1) }, {})
        assertTrue(long.totalMs >= 30 && long.base.size > 1)
        assertTrue(long.base.all { it >= 1000 })
        var left = 5
        val ended = interleaved(0, 100, 0.0, {}, {}, goOn = { left-- > 0 })
        assertEquals(5, ended.base.size)
    }

    @Test
    fun `a run counts where nothing was hot and it was long enough`() {
        assertTrue(Validity.of(run(), ThermalStatus.NONE, ThermalStatus.UNKNOWN).isValid)
    }

    @Test
    fun `a run does not count, and says why`() {
        val none = ThermalStatus.NONE
        fun reasons(run: InterleavedRun, before: ThermalStatus, after: ThermalStatus) =
            Validity.of(run, before, after).reasons
        assertEquals(listOf(InvalidReason.HOT_BEFORE), reasons(run(), ThermalStatus.LIGHT, none))
        assertEquals(listOf(InvalidReason.HOT_AFTER), reasons(run(), none, ThermalStatus.SEVERE))
        assertEquals(listOf(InvalidReason.SLOWED_DOWN), reasons(run(slower = 1.4), none, none))
        assertEquals(listOf(InvalidReason.TOO_FEW), reasons(run(calls = 49), none, none))
        assertEquals(listOf(InvalidReason.TOO_SHORT), reasons(run(totalMs = 999.0), none, none))
    }

    @Test
    fun `Android's thermal numbers have names, and unknown ones are unknown`() {
        assertEquals(ThermalStatus.NONE, ThermalStatus.of(0))
        assertEquals(ThermalStatus.SHUTDOWN, ThermalStatus.of(6))
        assertEquals(ThermalStatus.UNKNOWN, ThermalStatus.of(7))
        assertFalse(ThermalStatus.UNKNOWN.throttles)
    }

    @Test
    fun `the share file is a list in minibench's words, with what it has no place for in extra`() {
        val text = benchmarkJson(listOf(record())).write()
        val figures = (parseJson(text.toByteArray()) as JsonArray).elements.map { it as JsonObject }
        fun figure(metric: String) = figures.single { it["metric"] == JsonString(metric) }
        assertEquals(JsonReal(0.1), figure("base.p50_inference_latency(ms)")["actualValue"])
        assertEquals(JsonReal(2.0), figure("edited_over_base(ratio)")["actualValue"])
        assertEquals(JsonReal(20.0), figure("load_time(ms)")["actualValue"])
        assertEquals(JsonReal(20.0), figure("pss(mb)")["actualValue"])
        val keys = setOf("benchmarkModel", "metric", "actualValue", "targetValue", "deviceInfo", "extra")
        assertTrue(figures.all { it.members.keys == keys })
        assertTrue(figures.none { it["metric"] == JsonString("first_ever_load_time(ms)") })
        val extra = figures[0]["extra"] as JsonObject
        assertEquals(JsonString("none"), extra["thermal_after"])
    }

    @Test
    fun `the record for the cloud has the medians and their ratio`() {
        val measurement = record().measurement()
        assertEquals(2.0, measurement.ratio)
        assertEquals(listOf(100.0, 200.0), listOf(measurement.base.p50Us, measurement.edited.p50Us))
        assertEquals("none", measurement.host.thermal)
        assertEquals(10, measurement.base.warmUp)
    }

    @Test
    fun `the history outlives the app, and keeps its baseline`() {
        val file = File(folder, "history.json")
        val history = MeasurementHistory(file)
        val first = history.add(record(100.0))
        history.chooseBaseline(first)
        repeat(250) { history.add(record(90.0)) }
        val read = MeasurementHistory(file)
        assertEquals(history.entries, read.entries)
        assertEquals(first, read.baseline)
        assertTrue(read.entries.size <= 201)
        read.chooseBaseline(null)
        assertNull(MeasurementHistory(file).baseline)
    }

    @Test
    fun `an invalid run is not kept`() {
        val history = MeasurementHistory(File(folder, "history.json"))
        assertFailsWith<IllegalArgumentException> { history.add(record(valid = false)) }
    }

    @Test
    fun `a broken history is an empty one`() {
        val file = File(folder, "history.json")
        file.writeText("{\"baseline\": 1, \"runs\": [{}]}")
        assertTrue(MeasurementHistory(file).entries.isEmpty())
    }

    @Test
    fun `a run is compared with the baseline of the same program`() {
        val history = MeasurementHistory(File(folder, "history.json"))
        val baseline = history.add(record(100.0))
        fun verdict(p50: Double) =
            assertIs<Comparison.Comparable>(compare(history.add(record(p50)), baseline)).verdict
        assertEquals(Verdict.SAME, verdict(104.0))
        assertEquals(Verdict.SLOWER, verdict(106.0))
        assertEquals(Verdict.FASTER, verdict(94.0))
        val other = history.add(record(target = "vulkan"))
        assertEquals(Comparison.NotComparable, compare(other, baseline))
    }
}
