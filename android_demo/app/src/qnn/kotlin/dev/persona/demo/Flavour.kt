package dev.persona.demo

import android.content.Context
import android.system.Os

/** ExecuTorch with Qualcomm's QNN, on the NPU; XNNPACK where the bundle or the phone has no more. */
object Flavour {
    /** Targets that this build's runtime has backends for, best first. */
    val targets = listOf("executorch-qnn", "executorch-xnnpack")

    /** The NPU's driver looks for its own libraries where this says, and nowhere else. */
    fun prepare(context: Context) {
        Os.setenv("ADSP_LIBRARY_PATH", context.applicationInfo.nativeLibraryDir, true)
    }
}
