package org.pytorch.executorch

/** What the runtime has. */
class ExecuTorchRuntime private constructor() {
    companion object {
        @JvmStatic fun getRegisteredBackends(): Array<String> = NativeModule.registeredBackends()
    }
}
