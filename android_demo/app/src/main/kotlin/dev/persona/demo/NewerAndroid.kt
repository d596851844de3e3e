package dev.persona.demo

import android.os.Build
import android.os.PowerManager

/**
 * Calls that not every Android has that the app runs on, and that its sources are otherwise compiled
 * without: each asks for the version first.
 */
object NewerAndroid {
    /** `PowerManager.getCurrentThermalStatus()`; -1 before Android 10, which cannot say. */
    fun thermalStatus(power: PowerManager): Int =
        if (Build.VERSION.SDK_INT >= ANDROID_10) power.currentThermalStatus else -1

    private const val ANDROID_10 = 29
}
