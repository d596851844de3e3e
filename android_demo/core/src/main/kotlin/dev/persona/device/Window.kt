package dev.persona.device

import dev.persona.formats.FloatTensor
import dev.persona.formats.LongTensor
import dev.persona.formats.PortValue

/** A device's recent unlabelled data, oldest first. It never leaves the device. */
sealed interface Window {
    /** Ids of items. */
    class Items(val items: LongArray) : Window

    /** Samples: the program's inputs in the manifest's order, each [w, …]. */
    class Samples(val inputs: List<PortValue>) : Window
}

/** Row [index] of a value [w, …] as a sample with the batch of 1. */
internal fun PortValue.row(index: Int): PortValue {
    val rows = shape[0].toInt()
    val one = listOf(1L) + shape.drop(1)
    return when (this) {
        is FloatTensor -> {
            val size = values.size / rows
            FloatTensor(one, values.copyOfRange(index * size, (index + 1) * size))
        }
        is LongTensor -> {
            val size = values.size / rows
            LongTensor(one, values.copyOfRange(index * size, (index + 1) * size))
        }
    }
}
