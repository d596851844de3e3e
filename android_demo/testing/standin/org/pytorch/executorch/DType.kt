package org.pytorch.executorch

/** Element types of tensors with ExecuTorch's numbers for them. */
enum class DType(internal val jniCode: Int) {
    INT64(4),
    FLOAT(6),
    ;

    internal companion object {
        fun of(code: Int): DType = entries.first { it.jniCode == code }
    }
}
