package dev.persona.measure

/** How hot the phone says that it is, in Android's words. [text] stands in records. */
enum class ThermalStatus(val text: String) {
    UNKNOWN("unknown"),
    NONE("none"),
    LIGHT("light"),
    MODERATE("moderate"),
    SEVERE("severe"),
    CRITICAL("critical"),
    EMERGENCY("emergency"),
    SHUTDOWN("shutdown");

    /** Whether clocks may have been lowered. */
    val throttles: Boolean
        get() = this > NONE

    companion object {
        /** The status of `PowerManager.getCurrentThermalStatus()`: 0 is none. */
        fun of(status: Int): ThermalStatus = values().getOrElse(status + 1) { UNKNOWN }
    }
}

/** Why a run is no result. */
enum class InvalidReason(val code: String) {
    /** The phone was throttling before the run. */
    HOT_BEFORE("run.hot_before"),

    /** The phone throttled during the run. */
    HOT_AFTER("run.hot_after"),

    /** Calls became slower during the run. */
    SLOWED_DOWN("run.slowed_down"),

    /** The run was ended after too few calls. */
    TOO_FEW("run.too_few"),

    TOO_SHORT("run.too_short"),
}

/** The terms under which a run counts. */
data class RunRules(val minimumCalls: Int = 50, val minimumMs: Double = 1_000.0)

/**
 * Whether a run is a result, after MLPerf Mobile: calls enough, long enough, and no throttling.
 *
 * @property reasons empty where it is valid
 */
data class Validity(val reasons: List<InvalidReason>) {
    val isValid: Boolean
        get() = reasons.isEmpty()

    companion object {
        /** Slower by this factor in the last quarter of a run than in the first is throttling. */
        private const val SLOWER = 1.15

        fun of(
            run: InterleavedRun,
            before: ThermalStatus,
            after: ThermalStatus,
            rules: RunRules = RunRules(),
        ): Validity {
            val broken =
                mapOf(
                    InvalidReason.HOT_BEFORE to before.throttles,
                    InvalidReason.HOT_AFTER to after.throttles,
                    InvalidReason.SLOWED_DOWN to (slowdown(run.base) > SLOWER),
                    InvalidReason.TOO_FEW to (run.base.size < rules.minimumCalls),
                    InvalidReason.TOO_SHORT to (run.totalMs < rules.minimumMs),
                )
            return Validity(broken.filterValues { it }.keys.toList())
        }

        /** Median of the last quarter ÷ median of the first, in the order of the calls. */
        private fun slowdown(calls: DoubleArray): Double {
            val quarter = calls.size / 4
            if (quarter == 0) return 1.0
            val first = calls.copyOf(quarter).sortedArray()
            val last = calls.copyOfRange(calls.size - quarter, calls.size).sortedArray()
            return quantile(last, 0.5) / quantile(first, 0.5)
        }
    }
}
