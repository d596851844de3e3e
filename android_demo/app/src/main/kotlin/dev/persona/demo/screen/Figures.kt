package dev.persona.demo.screen

import dev.persona.demo.R
import java.time.Duration
import java.util.Locale

/** A size for people. */
internal fun bytes(size: Long): String =
    when {
        size < 1_000 -> "$size B"
        size < 1_000_000 -> String.format(Locale.ROOT, "%.1f kB", size / 1e3)
        else -> String.format(Locale.ROOT, "%.1f MB", size / 1e6)
    }

/** Milliseconds with three digits that count. */
internal fun ms(milliseconds: Double): String =
    when {
        milliseconds < 10 -> String.format(Locale.ROOT, "%.2f ms", milliseconds)
        milliseconds < 100 -> String.format(Locale.ROOT, "%.1f ms", milliseconds)
        else -> String.format(Locale.ROOT, "%.0f ms", milliseconds)
    }

/** Microseconds with three digits that count, without the unit. */
internal fun us(microseconds: Double): String =
    if (microseconds < 100) String.format(Locale.ROOT, "%.1f", microseconds)
    else String.format(Locale.ROOT, "%.0f", microseconds)

/** A share as per cent. */
internal fun percent(share: Double): String = String.format(Locale.ROOT, "%.0f %%", 100 * share)

/** How long ago or ahead, in the largest unit that fits. */
internal fun Sketch.age(duration: Duration): String {
    val seconds = duration.seconds.coerceAtLeast(0)
    return when {
        seconds < 60 -> text(R.string.seconds, seconds)
        seconds < 3_600 -> text(R.string.minutes, seconds / 60)
        seconds < 2 * 86_400 -> text(R.string.hours, seconds / 3_600)
        else -> text(R.string.days, seconds / 86_400)
    }
}
