package org.pytorch.executorch

import java.io.Closeable
import java.io.File

/** A loaded program, with the signatures of the Android library's `Module`, over the JNI shim. */
open class Module private constructor(path: String, loadMode: Int, numThreads: Int) : Closeable {
    private var handle = NativeModule.create(path, loadMode, numThreads)
    private val metadata =
        NativeModule.methods(handle).associateWith { MethodMetadata(it, NativeModule.backends(handle, it)) }

    open fun forward(vararg inputs: EValue): Array<EValue> = execute("forward", *inputs)

    @Synchronized
    open fun execute(methodName: String, vararg inputs: EValue): Array<EValue> {
        val tensors = inputs.map { it.toTensor() }
        val count = NativeModule.execute(
            living(),
            methodName,
            tensors.map { it.data }.toTypedArray(),
            tensors.map { it.shape() }.toTypedArray(),
            tensors.map { it.dtype().jniCode }.toIntArray(),
        )
        return Array(count) { EValue.from(output(methodName, it)) }
    }

    private fun output(method: String, index: Int): Tensor = Tensor.ofOutput(
        NativeModule.outputData(handle, method, index),
        NativeModule.outputShape(handle, method, index),
        DType.of(NativeModule.outputType(handle, method, index)),
    )

    @Synchronized
    open fun loadMethod(methodName: String) {
        val code = NativeModule.loadMethod(living(), methodName)
        if (code != 0) throw ExecutorchRuntimeException(code, "Failed to load method: $methodName")
    }

    open fun getMethods(): Array<String> = metadata.keys.toTypedArray()

    open fun getMethodMetadata(name: String): MethodMetadata =
        metadata[name] ?: throw IllegalArgumentException("there is no method $name")

    @Synchronized
    open fun destroy() {
        if (handle != 0L) NativeModule.destroy(handle)
        handle = 0L
    }

    override fun close() = destroy()

    private fun living(): Long {
        check(handle != 0L) { "Module has been destroyed" }
        return handle
    }

    companion object {
        const val LOAD_MODE_FILE = 0
        const val LOAD_MODE_MMAP = 1

        @JvmStatic
        @JvmOverloads
        fun load(modelPath: String?, loadMode: Int = LOAD_MODE_FILE, numThreads: Int = 0): Module {
            require(modelPath != null && File(modelPath).isFile) { "Cannot load model path: $modelPath" }
            return Module(modelPath, loadMode, numThreads)
        }
    }
}
