package dev.persona.demo

import android.content.Context

/** ExecuTorch with XNNPACK, on the CPU. */
object Flavour {
    /** Targets that this build's runtime has backends for, best first. */
    val targets = listOf("executorch-xnnpack")

    /** These backends need nothing before they are loaded. */
    @Suppress("UNUSED_PARAMETER") fun prepare(context: Context) = Unit
}
