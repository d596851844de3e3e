package dev.persona.demo.session

import dev.persona.formats.ItemsSpec
import dev.persona.formats.Manifest
import dev.persona.formats.PortType
import dev.persona.formats.Task

/** What a person can give this bundle's model by hand. */
sealed interface LiveInput {
    /** Digits drawn with a finger. */
    class Drawn(val raster: DigitRaster) : LiveInput

    /**
     * Items of a list.
     *
     * @property history how many of the last items the model sees, padded with 0 in front
     * @property shown how many candidates are ranked at once
     */
    class Items(val vocabulary: Int, val history: Int, val shown: Int) : LiveInput

    /** Neither: the bundle's golden inputs stand in. */
    object Recorded : LiveInput

    companion object {
        private const val SHOWN = 6

        /** Small square images are drawn; rankers of items get a list. */
        fun of(manifest: Manifest): LiveInput {
            val first = manifest.inputs[0]
            val spec = manifest.observation
            val shape = first.shape.map { it.toInt() }
            return when {
                manifest.task == Task.CLASSIFICATION && manifest.inputs.size == 1 &&
                    first.type == PortType.FLOAT32 && shape.size == 4 && shape[1] in 1..3 && shape[2] > 1 ->
                    Drawn(DigitRaster(shape[1], shape[2], shape[3]))
                manifest.task == Task.RANKING && spec is ItemsSpec && manifest.inputs.size == 2 &&
                    shape.size == 2 && shape[1] > 0 ->
                    Items(spec.vocabulary.toInt(), shape[1], SHOWN)
                else -> Recorded
            }
        }
    }
}
