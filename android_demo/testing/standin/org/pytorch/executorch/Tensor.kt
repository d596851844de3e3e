package org.pytorch.executorch

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.LongBuffer

/** A tensor over a direct buffer, which is not copied. */
class Tensor private constructor(internal val data: Buffer, shape: LongArray, private val type: DType) {
    private val sizes = shape.copyOf()

    fun shape(): LongArray = sizes.copyOf()

    fun numel(): Long = sizes.fold(1L) { product, size -> product * size }

    fun dtype(): DType = type

    val dataAsFloatArray: FloatArray
        get() {
            check(type == DType.FLOAT) { "Tensor of type $type cannot return data as float array." }
            val view = (data as FloatBuffer).duplicate().apply { rewind() }
            return FloatArray(view.remaining()).also { view.get(it) }
        }

    companion object {
        @JvmStatic
        fun allocateFloatBuffer(numElements: Int): FloatBuffer =
            ByteBuffer.allocateDirect(4 * numElements).order(ByteOrder.nativeOrder()).asFloatBuffer()

        @JvmStatic
        fun allocateLongBuffer(numElements: Int): LongBuffer =
            ByteBuffer.allocateDirect(8 * numElements).order(ByteOrder.nativeOrder()).asLongBuffer()

        @JvmStatic
        fun fromBlob(data: FloatBuffer, shape: LongArray): Tensor = checked(data, data.isDirect, shape, DType.FLOAT)

        @JvmStatic
        fun fromBlob(data: LongBuffer, shape: LongArray): Tensor = checked(data, data.isDirect, shape, DType.INT64)

        private fun checked(data: Buffer, direct: Boolean, shape: LongArray, type: DType): Tensor {
            require(direct) { "Data buffer must be direct" }
            val tensor = Tensor(data, shape, type)
            require(tensor.numel() == data.capacity().toLong()) { "Inconsistent data capacity and shape" }
            return tensor
        }

        internal fun ofOutput(bytes: ByteBuffer, shape: LongArray, type: DType): Tensor {
            val ordered = bytes.order(ByteOrder.nativeOrder())
            val data = if (type == DType.FLOAT) ordered.asFloatBuffer() else ordered.asLongBuffer()
            return Tensor(data, shape, type)
        }
    }
}
