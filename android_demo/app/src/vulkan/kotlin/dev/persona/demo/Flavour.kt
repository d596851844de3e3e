package dev.persona.demo

import android.content.Context

/** ExecuTorch with Vulkan, on the GPU; XNNPACK where the bundle or the phone has no more. */
object Flavour {
    /** Targets that this build's runtime has backends for, best first. */
    val targets = listOf("executorch-vulkan", "executorch-xnnpack")

    /** These backends need nothing before they are loaded. */
    @Suppress("UNUSED_PARAMETER") fun prepare(context: Context) = Unit
}
