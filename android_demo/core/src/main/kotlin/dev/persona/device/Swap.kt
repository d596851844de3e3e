package dev.persona.device

import dev.persona.formats.Code
import dev.persona.formats.DetachedSignature
import dev.persona.formats.PersonaError
import dev.persona.formats.PublicKeys
import dev.persona.formats.VerifiedEdit
import dev.persona.formats.verifyEdit
import java.time.Instant

/**
 * One edit on its way into the live model:
 *
 *     Received ─verify─► Verified ─remember─► Tried ─bind─► Bound ─probe─► Proven ─keep─► Active
 *         │                 │                   └─────────────┴──────────────┴─► TakenBack
 *         └─────────────────┴─► Refused
 *
 * Each state carries what is known in it, and only its predecessor makes it: an edit that has not
 * passed every rule cannot be bound, one that has not passed its probe cannot be kept, and whatever
 * is bound and not kept is taken back. Nothing has changed when an edit is refused; a sequence that
 * was tried stays tried.
 */
sealed class Swap {
    /** For people: what has been done. */
    abstract val about: String

    /** A state that something follows. */
    sealed class Pending : Swap() {
        internal abstract fun next(): Swap
    }

    /** A state that nothing follows. */
    sealed class Ended : Swap()

    /** Bytes and a signature that say that they are an edit. */
    class Received internal constructor(private val work: SwapWork) : Pending() {
        override val about = "${work.data.size} bytes received"

        override fun next(): Swap =
            try {
                Verified(work, work.verify())
            } catch (e: PersonaError) {
                Refused(e)
            }
    }

    /** Every rule of the contract holds. */
    class Verified internal constructor(private val work: SwapWork, val edit: VerifiedEdit) :
        Pending() {
        override val about = "signature, addressee, time, slots and values are in order"

        override fun next(): Swap =
            try {
                work.store.tried(edit.info.sequence)
                Tried(work, edit)
            } catch (e: StorageException) {
                Refused(e)
            }
    }

    /** Its sequence is on the disk: whatever happens now, it is not tried again. */
    class Tried internal constructor(private val work: SwapWork, val edit: VerifiedEdit) :
        Pending() {
        override val about = "sequence ${edit.info.sequence} will not be tried again"

        override fun next(): Swap =
            work.orTakeBack {
                work.live.bind(OnEdit(edit))
                Bound(work, edit)
            }
    }

    /** The program's slots hold base + prototype + edit. */
    class Bound internal constructor(private val work: SwapWork, val edit: VerifiedEdit) :
        Pending() {
        override val about = "slots hold base + prototype + edit"

        override fun next(): Swap =
            work.orTakeBack {
                work.live.probe(edit.probe)
                Proven(work, edit, work.millisecondsSoFar())
            }
    }

    /** The program does what the cloud computed. [toActiveMs] from the bytes in hand until now. */
    class Proven
    internal constructor(
        private val work: SwapWork,
        val edit: VerifiedEdit,
        val toActiveMs: Double,
    ) : Pending() {
        override val about = "the probe's output is as the cloud computed it"

        override fun next(): Swap =
            work.orTakeBack {
                work.store.activate(work.data, work.signature, edit.info.sequence)
                Active(edit, work.data.size.toLong(), toActiveMs)
            }
    }

    /** It runs, and runs after a restart. */
    class Active
    internal constructor(val edit: VerifiedEdit, val bytes: Long, val toActiveMs: Double) :
        Ended() {
        override val about = "active, and kept for the next start"
    }

    /** It broke a rule, or cannot be kept: nothing has changed. */
    class Refused internal constructor(val error: Exception) : Ended() {
        override val about = "refused: ${error.message}"
    }

    /** It was bound and did not hold: what ran before runs on. */
    class TakenBack internal constructor(val error: Exception) : Ended() {
        override val about = "taken back: ${error.message}"
    }

    /** The stable code of what went wrong, if something of the contract did. */
    val code: Code?
        get() =
            when (this) {
                is Refused -> (error as? PersonaError)?.code
                is TakenBack -> (error as? PersonaError)?.code
                else -> null
            }

    internal companion object {
        /** Goes from state to state until one ends it; [onState] hears of each. */
        fun run(work: SwapWork, onState: (Swap) -> Unit): Ended {
            var state: Swap = Received(work)
            onState(state)
            while (state is Pending) {
                state = state.next()
                onState(state)
            }
            return state as Ended
        }
    }
}

/** What a swap works on. */
internal class SwapWork(
    val live: LiveModel,
    val store: DeviceStore,
    val data: ByteArray,
    val signature: DetachedSignature,
    private val bundle: Bundle,
    private val keys: PublicKeys,
    private val now: Instant,
) {
    val before = live.state
    private val start = System.nanoTime()

    fun verify(): VerifiedEdit {
        val expected = bundle.expectation(store.state.device, store.state.sequence)
        return verifyEdit(data, signature, keys, expected, now)
    }

    fun millisecondsSoFar(): Double = (System.nanoTime() - start) / 1e6

    /**
     * The next state; or, where that cannot be, what ran before is bound again and the reason told.
     * What is no fault of edit, runtime or disk goes on up, with what ran before bound, too.
     */
    inline fun orTakeBack(next: () -> Swap): Swap =
        try {
            next()
        } catch (e: Exception) {
            live.bind(before)
            if (e !is PersonaError && e !is EngineException && e !is StorageException) throw e
            Swap.TakenBack(e)
        }
}
