package dev.persona.formats

/** The `format` of a measurement record: what a device measured, and under which terms. */
const val MEASUREMENT_FORMAT = "persona.measurement/1"

/** Microseconds a forward call: quantiles over [iterations] after [warmUp] calls. */
data class Latency(
    val iterations: Long,
    val warmUp: Long,
    val p50Us: Double,
    val p90Us: Double,
    val p99Us: Double,
    val meanUs: Double,
) {
    internal fun toJson() =
        jsonObject(
            "iterations" to JsonWhole(iterations),
            "warmup" to JsonWhole(warmUp),
            "p50_us" to JsonReal(p50Us),
            "p90_us" to JsonReal(p90Us),
            "p99_us" to JsonReal(p99Us),
            "mean_us" to JsonReal(meanUs),
        )
}

/** Where it was measured. [thermal]: as the platform names it, or `unknown`. */
data class Host(
    val system: String,
    val machine: String,
    val cores: Long,
    val threads: Long,
    val thermal: String,
)

/**
 * Base against edited, interleaved in one run, with the times around an edit. A latency without its
 * program, processor, counts and thermal state is not a result.
 *
 * @property delegates the backends that ran, one entry a delegate
 * @property base the same model with baked weights
 * @property ratio edited p50 ÷ base p50
 * @property loadMs reading a program and making its method ready
 * @property editToActiveMs from the edit's bytes in hand to the probe passed; null without an edit
 */
data class Measurement(
    val model: String,
    val bundle: String,
    val target: String,
    val precision: Precision,
    val delegates: List<String>,
    val host: Host,
    val base: Latency,
    val edited: Latency,
    val ratio: Double,
    val loadMs: Double,
    val editToActiveMs: Double?,
) {
    /** As `/v1/measurements` takes it. */
    fun toJson(): JsonObject =
        jsonObject(
            "format" to JsonString(MEASUREMENT_FORMAT),
            "model" to JsonString(model),
            "bundle" to JsonString(bundle),
            "target" to JsonString(target),
            "precision" to JsonString(precision.text),
            "delegates" to JsonArray(delegates.map(::JsonString)),
            "host" to
                jsonObject(
                    "system" to JsonString(host.system),
                    "machine" to JsonString(host.machine),
                    "cores" to JsonWhole(host.cores),
                    "threads" to JsonWhole(host.threads),
                    "thermal" to JsonString(host.thermal),
                ),
            "base" to base.toJson(),
            "edited" to edited.toJson(),
            "ratio" to JsonReal(ratio),
            "load_ms" to JsonReal(loadMs),
            "edit_to_active_ms" to (editToActiveMs?.let(::JsonReal) ?: JsonNull),
        )
}
