package dev.persona.measure

import dev.persona.formats.Host
import dev.persona.formats.JsonArray
import dev.persona.formats.JsonBoolean
import dev.persona.formats.JsonNull
import dev.persona.formats.JsonObject
import dev.persona.formats.JsonReal
import dev.persona.formats.JsonString
import dev.persona.formats.JsonValue
import dev.persona.formats.JsonWhole
import dev.persona.formats.Measurement
import dev.persona.formats.Precision
import dev.persona.formats.formatTime
import dev.persona.formats.jsonObject
import java.time.Instant

/** Which program was measured, on what. */
data class BenchmarkSubject(
    val model: String,
    val bundle: String,
    val target: String,
    val precision: Precision,
    val delegates: List<String>,
)

/**
 * The phone.
 *
 * @property name as its maker calls it; not a serial number or any other id
 * @property system such as `Android 14`
 * @property machine such as `arm64-v8a`
 */
data class BenchmarkHost(
    val name: String,
    val system: String,
    val machine: String,
    val cores: Int,
    val threads: Int,
)

/**
 * Milliseconds until a program is ready: after the app's installation, after its start, and again.
 * Null where it was not measured.
 */
data class LoadTimes(val firstEverMs: Double?, val coldMs: Double?, val warmMs: Double)

/**
 * All that one run found. [measurement] is the part that the cloud takes.
 *
 * @property editToActiveMs from the edit's bytes in hand to the probe passed; null without an edit
 * @property memoryKb proportional set size after the run; null where it is not known
 */
data class BenchmarkRecord(
    val at: Instant,
    val subject: BenchmarkSubject,
    val host: BenchmarkHost,
    val warmUp: Int,
    val base: LatencyStatistics,
    val edited: LatencyStatistics,
    val load: LoadTimes,
    val editToActiveMs: Double?,
    val memoryKb: Long?,
    val thermalBefore: ThermalStatus,
    val thermalAfter: ThermalStatus,
    val validity: Validity,
) {
    /** Edited p50 ÷ base p50. */
    val ratio: Double
        get() = edited.p50 / base.p50

    /** As `/v1/measurements` takes it. Report valid runs only. */
    fun measurement() =
        Measurement(
            model = subject.model,
            bundle = subject.bundle,
            target = subject.target,
            precision = subject.precision,
            delegates = subject.delegates,
            host =
                Host(
                    system = host.system,
                    machine = host.machine,
                    cores = host.cores.toLong(),
                    threads = host.threads.toLong(),
                    thermal = thermalAfter.text,
                ),
            base = base.latency(warmUp),
            edited = edited.latency(warmUp),
            ratio = ratio,
            loadMs = load.warmMs,
            editToActiveMs = editToActiveMs,
        )
}

/**
 * Runs as ExecuTorch's minibench writes them, one object a figure, so that its tools read them:
 * `benchmarkModel`, `metric`, `actualValue`, `targetValue`, `deviceInfo`. What it has no place for
 * stands in `extra`, the same for all figures of a run.
 */
fun benchmarkJson(records: List<BenchmarkRecord>): JsonArray = JsonArray(records.flatMap(::metrics))

private fun metrics(record: BenchmarkRecord): List<JsonValue> =
    figures(record).map { (metric, value) ->
        jsonObject(
            "benchmarkModel" to
                jsonObject(
                    "name" to JsonString(record.subject.model),
                    "backend" to JsonString(record.subject.target),
                    "quantization" to JsonString(record.subject.precision.text),
                ),
            "metric" to JsonString(metric),
            "actualValue" to JsonReal(value),
            "targetValue" to JsonReal(0.0),
            "deviceInfo" to
                jsonObject(
                    "device" to JsonString(record.host.name),
                    "os" to JsonString(record.host.system),
                    "arch" to JsonString(record.host.machine),
                    "cores" to JsonWhole(record.host.cores.toLong()),
                ),
            "extra" to extra(record),
        )
    }

private fun figures(record: BenchmarkRecord): List<Pair<String, Double>> =
    latencies("base", record.base) +
        latencies("edited", record.edited) +
        listOfNotNull(
            "edited_over_base(ratio)" to record.ratio,
            record.load.firstEverMs?.let { "first_ever_load_time(ms)" to it },
            record.load.coldMs?.let { "cold_load_time(ms)" to it },
            "load_time(ms)" to record.load.warmMs,
            record.editToActiveMs?.let { "edit_to_active(ms)" to it },
            record.memoryKb?.let { "pss(mb)" to it / 1024.0 },
        )

private fun latencies(of: String, statistics: LatencyStatistics): List<Pair<String, Double>> =
    listOf(
            "avg_inference_latency" to statistics.mean,
            "trimmean_inference_latency" to statistics.trimmedMean,
            "std_inference_latency" to statistics.deviation,
            "min_inference_latency" to statistics.min,
            "p50_inference_latency" to statistics.p50,
            "p90_inference_latency" to statistics.p90,
            "p95_inference_latency" to statistics.p95,
            "p99_inference_latency" to statistics.p99,
            "max_inference_latency" to statistics.max,
        )
        .map { (name, us) -> "$of.$name(ms)" to us / 1000 }

private fun extra(record: BenchmarkRecord): JsonObject =
    jsonObject(
        "measured_at" to JsonString(formatTime(record.at)),
        "bundle" to JsonString(record.subject.bundle),
        "delegates" to JsonArray(record.subject.delegates.map(::JsonString)),
        "iterations" to JsonWhole(record.base.count.toLong()),
        "warm_up" to JsonWhole(record.warmUp.toLong()),
        "threads" to JsonWhole(record.host.threads.toLong()),
        "thermal_before" to JsonString(record.thermalBefore.text),
        "thermal_after" to JsonString(record.thermalAfter.text),
        "valid" to JsonBoolean(record.validity.isValid),
        "invalid_because" to JsonArray(record.validity.reasons.map { JsonString(it.code) }),
        "edit_to_active_ms" to (record.editToActiveMs?.let(::JsonReal) ?: JsonNull),
    )
