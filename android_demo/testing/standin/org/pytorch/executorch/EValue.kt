package org.pytorch.executorch

/** An argument or a result; here a tensor, which is all that a bundle's programs take and give. */
class EValue private constructor(private val tensor: Tensor) {
    fun isTensor(): Boolean = true

    fun toTensor(): Tensor = tensor

    companion object {
        @JvmStatic fun from(value: Tensor): EValue = EValue(value)
    }
}
