package dev.persona.device

import dev.persona.formats.Carries
import dev.persona.formats.FloatTensor
import dev.persona.formats.PortValue
import dev.persona.formats.Program
import dev.persona.formats.SlotTensors
import dev.persona.formats.effective
import dev.persona.formats.patchedHead
import dev.persona.formats.sumChanges
import java.io.File

/** The method with baked weights: the same model without slots, to measure against. */
const val BASE_METHOD = "base"

/**
 * One program of a bundle on this phone's runtime. An app implements it; [Device] calls it from one
 * thread at a time. All throw [EngineException] where the runtime refuses.
 */
interface Engine : AutoCloseable {
    /**
     * Gives every slot its values, all at once; they count from the next [predict] on and until
     * the next [bind].
     */
    fun bind(slots: BoundSlots)

    /**
     * Runs the program's `method` with the sample's inputs, in the manifest's order, followed by
     * [BoundSlots.inputs]; where the program has a head, the head with what came, in order.
     *
     * @param inputs one sample's, with the batch of 1
     * @return the first output, copied: it outlives the next call
     */
    fun predict(inputs: List<PortValue>): FloatTensor

    /** The same by [BASE_METHOD], whose weights are constants: it takes no slot inputs. */
    fun predictBase(inputs: List<PortValue>): FloatTensor

    /**
     * Runs `observeMethod` of `observePath` with the sample's inputs alone. Not called where item
     * ids are observed.
     */
    fun observe(inputs: List<PortValue>): Features
}

/** What the observe program gives for one sample: [features] [1, F] and [posterior] [1, C]. */
class Features(val features: FloatTensor, val posterior: FloatTensor)

/** The runtime cannot load or run a program. */
class EngineException(message: String, cause: Throwable? = null) : Exception(message, cause)

/**
 * Slot values as a program takes them.
 *
 * @property inputs of the slots that are inputs, in the order of their index, each with the shape
 *   of its feed: they follow the sample's inputs
 * @property head where the program is in two, the whole head file with its slots patched. An engine
 *   (1) lets go of the head that it has, (2) writes these bytes with [writeHead], (3) loads them.
 *   In this order: XNNPACK keeps packed weights by name as long as any module with the name lives
 */
class BoundSlots(val inputs: List<FloatTensor>, val head: ByteArray?) {
    /** Writes [head] to a file of its own in [folder], whole and then renamed. */
    fun writeHead(folder: File): File =
        File(folder, "head.pte").also { DurableFiles().write(it, checkNotNull(head)) }
}

/** Turns changes into what one program takes: base + prototype + edit, by its feeds. */
internal class SlotFeeder(private val bundle: Bundle, private val program: Program) {
    private val head: ByteArray? = program.head?.let { File(bundle.folder, it.path).readBytes() }
    private val inputs =
        program.feeds
            .filter { it.patch == null }
            .map { feed ->
                feed.index?.let { it to feed }
                    ?: throw EngineException(
                        "${program.target} gives no index for \"${feed.tensor}\", and inputs are " +
                            "fed by index here; take a bundle that was exported for ExecuTorch"
                    )
            }
            .sortedBy { it.first }
            .map { it.second }

    fun slots(prototype: SlotTensors, edit: SlotTensors): BoundSlots {
        val slots = bundle.manifest.slots
        val carries = program.feeds.first().carries
        val values =
            when (carries) {
                Carries.EFFECTIVE -> effective(slots, bundle.base, prototype, edit)
                Carries.CHANGE -> sumChanges(slots, prototype, edit)
            }
        return BoundSlots(
            inputs.map { FloatTensor(it.shape, values.getValue(it.tensor).values) },
            head?.let { patchedHead(it, program.feeds, values) },
        )
    }
}
