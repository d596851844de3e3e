package dev.persona.demo.screen

import dev.persona.demo.R
import dev.persona.measure.InvalidReason
import dev.persona.measure.ThermalStatus

/** Why a run is no result, in the language of the phone. */
internal val InvalidReason.wording: Int
    get() = when (this) {
        InvalidReason.HOT_BEFORE -> R.string.invalid_hot_before
        InvalidReason.HOT_AFTER -> R.string.invalid_hot_after
        InvalidReason.SLOWED_DOWN -> R.string.invalid_slowed_down
        InvalidReason.TOO_FEW -> R.string.invalid_too_few
        InvalidReason.TOO_SHORT -> R.string.invalid_too_short
    }

internal val ThermalStatus.wording: Int
    get() = when (this) {
        ThermalStatus.UNKNOWN -> R.string.unknown
        ThermalStatus.NONE -> R.string.thermal_none
        ThermalStatus.LIGHT -> R.string.thermal_light
        ThermalStatus.MODERATE -> R.string.thermal_moderate
        ThermalStatus.SEVERE -> R.string.thermal_severe
        ThermalStatus.CRITICAL -> R.string.thermal_critical
        ThermalStatus.EMERGENCY -> R.string.thermal_emergency
        ThermalStatus.SHUTDOWN -> R.string.thermal_shutdown
    }
