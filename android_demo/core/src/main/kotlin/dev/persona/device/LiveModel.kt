package dev.persona.device

import dev.persona.formats.Code
import dev.persona.formats.FloatTensor
import dev.persona.formats.PersonaError
import dev.persona.formats.PortValue
import dev.persona.formats.Program
import dev.persona.formats.SlotTensors
import dev.persona.formats.VerifiedEdit
import dev.persona.formats.allowed
import dev.persona.formats.changesNothing
import dev.persona.formats.checkProbe
import dev.persona.formats.difference
import dev.persona.formats.zeroEdit

/** What runs: effective = base + prototype + edit. */
sealed interface LiveState

/** No edit: the backbone as it was shipped. */
object OnBase : LiveState {
    override fun toString() = "OnBase"
}

/** A group edit, chosen on the device. */
data class OnPrototype(val index: Int) : LiveState

/** The device's own edit, around its prototype. It has passed every rule. */
data class OnEdit(val edit: VerifiedEdit) : LiveState

/** An engine and the state that it is in. Not thread-safe: [Device] holds the lock. */
internal class LiveModel(
    private val bundle: Bundle,
    private val program: Program,
    val engine: Engine,
) {
    private val feeder = SlotFeeder(bundle, program)
    private val slots = bundle.manifest.slots
    private val nothing = zeroEdit(slots)
    private val baseOutput: FloatTensor

    var state: LiveState = OnBase
        private set

    init {
        checkGolden()
        bind(OnBase)
        baseOutput = golden(0)
    }

    /** Gives the engine a state's slots. */
    fun bind(next: LiveState) {
        val (prototype, edit) = changes(next)
        engine.bind(feeder.slots(prototype, edit))
        state = next
    }

    /** Whether the engine does what was computed elsewhere for the state that is bound. */
    fun probe(expected: FloatTensor) {
        val (prototype, edit) = changes(state)
        val zero = changesNothing(slots, prototype, edit)
        checkProbe(expected, golden(0), baseOutput, program.tolerance, zero)
    }

    /**
     * Runs a group edit alone, if it holds on this processor; else what ran before runs on. What is
     * no fault of the edit goes on up, with what ran before bound, too.
     */
    fun usePrototype(index: Int) {
        val before = state
        try {
            bind(OnPrototype(index))
            probe(bundle.golden.prototypes[index][0])
        } catch (e: Exception) {
            bind(before)
            if (e !is PersonaError) throw e
        }
    }

    /** Prototype and edit of a state, as changes. */
    fun changes(state: LiveState): Pair<SlotTensors, SlotTensors> =
        when (state) {
            is OnBase -> nothing to nothing
            is OnPrototype -> bundle.prototypes.changes[state.index] to nothing
            is OnEdit -> {
                val group = state.edit.info.prototype?.toInt()
                (group?.let { bundle.prototypes.changes[it] } ?: nothing) to state.edit.tensors
            }
        }

    /** The health check: every golden output must come before anything else runs. */
    private fun checkGolden() {
        val golden = bundle.golden
        val cases =
            listOf(Triple(nothing, nothing, golden.base)) +
                bundle.prototypes.changes.zip(golden.prototypes) { p, e -> Triple(p, nothing, e) } +
                Triple(nothing, golden.edit, golden.edited)
        for ((prototype, edit, outputs) in cases) {
            engine.bind(feeder.slots(prototype, edit))
            outputs.forEachIndexed { i, expected -> compare("output $i", expected, golden(i)) }
        }
        for (i in golden.features.indices) {
            val found = engine.observe(inputs(i))
            compare("features $i", golden.features[i], found.features)
            compare("posterior $i", golden.posterior[i], found.posterior)
        }
    }

    private fun compare(what: String, expected: FloatTensor, output: FloatTensor) {
        val fits = output.shape == expected.shape
        val difference = if (fits) difference(expected, output) else Double.NaN
        val allowed = allowed(expected, program.tolerance)
        if (!(difference <= allowed)) {
            val found = if (fits) "$difference away from" else "of shape ${output.shape}, not"
            throw PersonaError(
                Code.BUNDLE_GOLDEN,
                "golden $what of ${program.target} is $found what it must be; $allowed is " +
                    "allowed. Export the bundle again, and if that does not help, this processor needs " +
                    "another target",
            )
        }
    }

    private fun golden(index: Int): FloatTensor = engine.predict(inputs(index))

    private fun inputs(index: Int): List<PortValue> =
        bundle.manifest.inputs.map { bundle.golden.inputs[index].getValue(it.name) }
}
