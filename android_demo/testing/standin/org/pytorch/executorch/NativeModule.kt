package org.pytorch.executorch

import java.nio.Buffer
import java.nio.ByteBuffer

/** The JNI shim over the wheel's libexecutorch, see `testing/shim`. */
internal object NativeModule {
    init {
        System.load(requireNotNull(System.getProperty("persona.shim")) { "name the shim with -Dpersona.shim=PATH" })
    }

    @JvmStatic external fun create(path: String, mode: Int, threads: Int): Long
    @JvmStatic external fun destroy(handle: Long)
    @JvmStatic external fun methods(handle: Long): Array<String>
    @JvmStatic external fun backends(handle: Long, method: String): Array<String>
    @JvmStatic external fun loadMethod(handle: Long, method: String): Int
    @JvmStatic external fun execute(
        handle: Long,
        method: String,
        buffers: Array<Buffer>,
        shapes: Array<LongArray>,
        types: IntArray,
    ): Int
    @JvmStatic external fun outputData(handle: Long, method: String, index: Int): ByteBuffer
    @JvmStatic external fun outputShape(handle: Long, method: String, index: Int): LongArray
    @JvmStatic external fun outputType(handle: Long, method: String, index: Int): Int
    @JvmStatic external fun registeredBackends(): Array<String>
}
