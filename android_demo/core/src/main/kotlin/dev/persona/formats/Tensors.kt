package dev.persona.formats

/** What goes into or comes out of a program: numbers with a shape, row by row. */
sealed interface PortValue {
    val shape: List<Long>
}

/** binary32 numbers. */
class FloatTensor(override val shape: List<Long>, val values: FloatArray) : PortValue {
    init {
        require(elements(shape) == values.size.toLong()) {
            "shape $shape needs ${elements(shape)} values, got ${values.size}"
        }
    }

    /** Equal shape and equal bits: NaN equals itself, 0 and -0 differ. */
    override fun equals(other: Any?) =
        other is FloatTensor && shape == other.shape && values.contentEquals(other.values)

    override fun hashCode() = 31 * shape.hashCode() + values.contentHashCode()

    override fun toString() = "FloatTensor$shape"

    companion object {
        /** All zeros. */
        fun zeros(shape: List<Long>) = FloatTensor(shape, FloatArray(elements(shape).toInt()))
    }
}

/** 64-bit whole numbers. */
class LongTensor(override val shape: List<Long>, val values: LongArray) : PortValue {
    init {
        require(elements(shape) == values.size.toLong()) {
            "shape $shape needs ${elements(shape)} values, got ${values.size}"
        }
    }

    override fun equals(other: Any?) =
        other is LongTensor && shape == other.shape && values.contentEquals(other.values)

    override fun hashCode() = 31 * shape.hashCode() + values.contentHashCode()

    override fun toString() = "LongTensor$shape"
}

private fun elements(shape: List<Long>): Long = shape.fold(1L) { product, size -> product * size }

/** IEEE binary16 to binary32, exactly: subnormal numbers, -0, infinities and NaN included. */
internal fun halfToFloat(half: Int): Float {
    val sign = (half and 0x8000) shl 16
    val exponent = (half shr 10) and 0x1f
    val fraction = half and 0x3ff
    val magnitude =
        when (exponent) {
            0 -> return (fraction * SMALLEST_HALF).let { if (sign != 0) -it else it }
            0x1f -> 0x7f80_0000 or (fraction shl 13)
            else -> ((exponent + 112) shl 23) or (fraction shl 13)
        }
    return Float.fromBits(sign or magnitude)
}

/** 2^-24, the smallest binary16 number above 0. */
private const val SMALLEST_HALF = 5.9604645e-8f
