package dev.persona.device

import dev.persona.formats.Code
import dev.persona.formats.Container
import dev.persona.formats.DetachedSignature
import dev.persona.formats.Envelope
import dev.persona.formats.FloatTensor
import dev.persona.formats.ItemsObservation
import dev.persona.formats.ItemsSpec
import dev.persona.formats.Measurement
import dev.persona.formats.Observation
import dev.persona.formats.PersonaError
import dev.persona.formats.PooledSpec
import dev.persona.formats.PortValue
import dev.persona.formats.Program
import dev.persona.formats.PublicKeys
import dev.persona.formats.SlotTensors
import dev.persona.formats.checkCount
import dev.persona.formats.checkObservation
import dev.persona.formats.parseInfo
import dev.persona.formats.pool
import dev.persona.formats.verifyEdit
import java.io.File
import java.time.Instant

/** What came of asking for an edit. [state] is what runs now. */
class Personalisation(val state: LiveState, val outcome: Outcome)

sealed interface Outcome {
    /** A new edit runs. [toActiveMs] from its bytes in hand to the probe passed. */
    data class NewEdit(val bytes: Long, val toActiveMs: Double, val roundTripMs: Double) : Outcome

    /** The window has not drifted: nothing was asked. */
    data class NotNeeded(val drift: Double) : Outcome

    /** The cloud cannot be reached: the last edit, a prototype or the base runs. */
    data class Offline(val why: String) : Outcome

    /** Cloud, contract, probe or disk refused. [code] is stable where the refusal has one. */
    data class Refused(val code: String?, val why: String) : Outcome
}

/** A step of a swap, for the log that people see. */
class SwapRecord(val at: Instant, val about: String, val code: Code?)

/**
 * One phone's worth of Persona: it checks its bundle, observes, asks, verifies, swaps, and falls
 * back when offline (last edit, then the prototype that it chooses itself, then the base).
 *
 * Thread-safe; calls block. A prediction sees one state, never a mixture.
 */
class Device
internal constructor(
    val bundle: Bundle,
    val program: Program,
    engine: Engine,
    folder: File,
    pinned: PublicKeys?,
    private val clock: () -> Instant,
    files: DurableFiles,
) {
    /**
     * Checks the golden vectors and goes on with the last edit, if it is still good.
     *
     * @param program of [bundle]; [engine] runs it
     * @param folder where this device keeps what it must remember; nothing else writes there but
     *   [LearnedKeys]
     * @param pinned the publishers' keys that the app names: they verify the first key document.
     *   Null takes the key that [bundle] brings, which is enough to follow its publisher, not to
     *   know who it is
     * @throws PersonaError `bundle.golden_mismatch` where the program does not compute here what it
     *   must, [EngineException] where it does not run, [StorageException] where nothing can be kept
     */
    constructor(
        bundle: Bundle,
        program: Program,
        engine: Engine,
        folder: File,
        pinned: PublicKeys?,
    ) : this(bundle, program, engine, folder, pinned, Instant::now, DurableFiles())

    private val store = DeviceStore(folder, bundle.digest, files)
    private val keys = LearnedKeys(folder, pinned ?: bundle.signer, files)
    private val live = LiveModel(bundle, program, engine)
    private val lock = Any()
    private val asking = Any()
    private val records = ArrayDeque<SwapRecord>()

    init {
        restore()
    }

    /** What runs now. */
    val state: LiveState
        get() = synchronized(lock) { live.state }

    /** Size of the running edit's file in bytes; null where none runs. */
    val editBytes: Long?
        get() =
            synchronized(lock) {
                if (live.state is OnEdit) store.active()?.data?.size?.toLong() else null
            }

    /** The running state's prototype + edit, `SLOT.SUFFIX` -> values as in an edit. */
    val changes: Pair<SlotTensors, SlotTensors>
        get() = synchronized(lock) { live.changes(live.state) }

    /** Steps of swaps, the newest last; the oldest are forgotten. */
    val history: List<SwapRecord>
        get() = synchronized(lock) { records.toList() }

    /** Our id at the cloud; empty before the first contact. */
    val id: String
        get() = synchronized(lock) { store.state.device }

    /** One sample's inputs -> output [1, outputs], with whatever edit is active. */
    fun predict(inputs: List<PortValue>): FloatTensor =
        synchronized(lock) {
            retireExpired()
            live.engine.predict(inputs)
        }

    /** The same without any edit, by the method whose weights are constants. */
    fun predictBase(inputs: List<PortValue>): FloatTensor =
        synchronized(lock) { live.engine.predictBase(inputs) }

    /** The observation of a window's newest samples. Throws [PersonaError] `observation.*`. */
    fun observe(window: Window): Observation =
        when (val spec = bundle.manifest.observation) {
            is ItemsSpec -> {
                val items = (window as? Window.Items)?.items ?: wrongWindow("item ids")
                val first = maxOf(0L, items.size - spec.maxCount).toInt()
                val observation = ItemsObservation(items.copyOfRange(first, items.size))
                observation.also { checkObservation(spec, it) }
            }
            is PooledSpec -> {
                val inputs = (window as? Window.Samples)?.inputs ?: wrongWindow("samples")
                poolSamples(spec, inputs)
            }
        }

    private fun wrongWindow(expected: String): Nothing =
        throw PersonaError(Code.OBSERVATION_INVALID, "this bundle observes $expected")

    private fun poolSamples(spec: PooledSpec, inputs: List<PortValue>): Observation {
        val all = inputs[0].shape[0].toInt()
        val first = maxOf(0L, all - spec.maxCount).toInt()
        val n = (all - first).toLong()
        checkCount(spec, n)
        val seen =
            (first until all).map { i ->
                synchronized(lock) { live.engine.observe(inputs.map { it.row(i) }) }
            }
        val features = seen.map { it.features.values }.reduce(FloatArray::plus)
        val posterior = seen.map { it.posterior.values }.reduce(FloatArray::plus)
        return pool(
            spec,
            FloatTensor(listOf(n, features.size / n), features),
            FloatTensor(listOf(n, posterior.size / n), posterior),
        )
    }

    /** Whether it is worth asking the cloud about this observation. */
    fun gate(observation: Observation): GateDecision =
        synchronized(lock) {
            retireExpired()
            val spec = bundle.manifest.observation
            val running = (live.state as? OnEdit)?.edit?.info
            val kept = store.state.edit != null
            Gate.decide(spec, store.lastTold(spec), observation, running, kept, clock())
        }

    /** Asks for an edit and activates it; on any failure falls back, and says why. */
    fun personalise(cloud: CloudClient, window: Window): Personalisation =
        synchronized(asking) { outcome { ask(cloud, observe(window)) } }

    /** The same, but only if the gate finds that it is worth it. */
    fun personaliseIfDrifted(cloud: CloudClient, window: Window): Personalisation =
        synchronized(asking) {
            outcome {
                val observation = observe(window)
                when (val decision = gate(observation)) {
                    is GateDecision.Stay -> Outcome.NotNeeded(decision.drift)
                    is GateDecision.Ask -> ask(cloud, observation)
                }
            }
        }

    private fun outcome(body: () -> Outcome): Personalisation {
        val outcome =
            try {
                body()
            } catch (e: PersonaError) {
                refused(e)
            } catch (e: EngineException) {
                refused(e)
            }
        return Personalisation(state, outcome)
    }

    private fun ask(cloud: CloudClient, observation: Observation): Outcome {
        val outcome =
            try {
                val sent = System.nanoTime()
                val answer = requestEdit(cloud, Envelope(bundle.digest, observation))
                val roundTripMs = (System.nanoTime() - sent) / 1e6
                synchronized(lock) { store.told(observation) }
                if (answer.keys > keys.sequence) learnKeys(cloud)
                when (val ended = accept(answer.data, answer.signature)) {
                    is Swap.Active -> Outcome.NewEdit(ended.bytes, ended.toActiveMs, roundTripMs)
                    is Swap.Refused -> refused(ended.error)
                    is Swap.TakenBack -> refused(ended.error)
                }
            } catch (e: OfflineException) {
                Outcome.Offline("${e.message}")
            } catch (e: CloudError) {
                refused(e)
            } catch (e: StorageException) {
                refused(e)
            }
        if (outcome !is Outcome.NewEdit) fallBack(observation)
        return outcome
    }

    /** Trusts what the cloud's key documents say, as far as they can be had and hold. */
    private fun learnKeys(cloud: CloudClient) {
        val before = keys.sequence
        val fault =
            try {
                keys.catchUp(cloud, clock())
                null
            } catch (e: PersonaError) {
                e
            } catch (e: OfflineException) {
                e
            } catch (e: CloudError) {
                e
            } catch (e: StorageException) {
                e
            }
        synchronized(lock) {
            if (fault != null) note("keys stay as they are: ${fault.message}", fault)
            if (keys.sequence > before) note("the keys of document ${keys.sequence} are trusted")
            retireRevoked()
        }
    }

    /** An edit whose key is trusted no more gives way to the prototype that it was made around. */
    private fun retireRevoked() {
        val info = (live.state as? OnEdit)?.edit?.info ?: return
        val signer = store.active()?.signature?.keyId ?: return
        if (keys.editKeys(bundle, clock()).knows(signer)) return
        note("the edit's key \"$signer\" is trusted no more")
        live.bind(OnBase)
        useGroup(info.prototype)
        forgetQuietly()
    }

    private fun refused(error: Exception): Outcome {
        val code =
            when (error) {
                is PersonaError -> error.code.text
                is CloudError -> error.code
                else -> null
            }
        return Outcome.Refused(code, "${error.message}")
    }

    private fun requestEdit(cloud: CloudClient, envelope: Envelope): SignedEdit {
        val manifest = bundle.manifest
        return withToken(cloud) { token ->
            cloud.requestEdit(token, manifest.model, envelope, manifest.maxEditBytes)
        }
    }

    /** Sends a measurement. Throws [OfflineException] or [CloudError]. */
    fun report(cloud: CloudClient, measurement: Measurement) {
        synchronized(asking) { withToken(cloud) { cloud.report(it, measurement) } }
    }

    /**
     * Does [action] with our token, enrolling first where there is none. Where the cloud no longer
     * takes the token, an expired one is renewed and we stay who we are; otherwise we enrol anew.
     */
    private fun <T> withToken(cloud: CloudClient, action: (String) -> T): T {
        enrol(cloud)
        return try {
            action(token())
        } catch (e: CloudError) {
            if (e.code !in STALE_TOKEN) throw e
            if (!renewed(cloud)) {
                synchronized(lock) { store.forgotten() }
                enrol(cloud)
            }
            action(token())
        }
    }

    private fun token(): String = synchronized(lock) { store.state.token }

    private fun enrol(cloud: CloudClient) {
        if (token().isEmpty()) enrolled(cloud.enrol())
    }

    private fun renewed(cloud: CloudClient): Boolean =
        try {
            enrolled(cloud.renew(Enrolment(id, token())))
            true
        } catch (_: CloudError) {
            false
        }

    private fun enrolled(enrolment: Enrolment) =
        synchronized(lock) { store.enrolled(enrolment.device, enrolment.token) }

    /** Verifies, swaps, probes and keeps an edit. Never leaves anything half done. */
    fun accept(data: ByteArray, signature: DetachedSignature): Swap.Ended =
        synchronized(lock) {
            val now = clock()
            val trusted = keys.editKeys(bundle, now)
            Swap.run(SwapWork(live, store, data, signature, bundle, trusted, now)) {
                record(it.about, it.code)
            }
        }

    private fun note(about: String, fault: Exception? = null) =
        record(about, (fault as? PersonaError)?.code)

    private fun record(about: String, code: Code?) {
        records += SwapRecord(clock(), about, code)
        while (records.size > MOST_RECORDS) records.removeFirst()
    }

    /**
     * Without the cloud: the last edit while it is good, else a prototype, else the base. A
     * prototype that fails its golden output on this processor is not used.
     */
    fun fallBack(observation: Observation) {
        synchronized(lock) {
            retireExpired()
            if (live.state is OnEdit || bundle.manifest.prototypeCount == 0L) return
            val vector = observation.vector(bundle.manifest.observation)
            live.usePrototype(bundle.prototypes.assign(vector))
        }
    }

    /** Takes the edit back: the base runs again, bit for bit, now and after a restart. */
    fun rollBack() {
        synchronized(lock) {
            live.bind(OnBase)
            store.deactivate()
            note("rolled back to the base")
        }
    }

    private fun restore() {
        val stored = store.active() ?: return
        val fault = restoreFault(stored)
        val about =
            if (fault == null) "the last edit goes on" else "the last edit rests: ${fault.message}"
        note(about, fault)
        if (fault == null) return
        val code = (fault as? PersonaError)?.code
        live.bind(OnBase)
        if (code in CLOCK) {
            useGroup(parseInfo(Container.decode(stored.data).metadata).prototype)
        } else {
            forgetQuietly()
        }
    }

    /** Goes on with the stored edit, or says why not. */
    private fun restoreFault(stored: DeviceStore.StoredEdit): Exception? {
        val before = checkNotNull(store.state.edit) - 1
        val expected = bundle.expectation(store.state.device, before)
        return try {
            val now = clock()
            val trusted = keys.editKeys(bundle, now)
            val edit = verifyEdit(stored.data, stored.signature, trusted, expected, now)
            live.bind(OnEdit(edit))
            live.probe(edit.probe)
            null
        } catch (e: PersonaError) {
            e
        } catch (e: EngineException) {
            e
        }
    }

    /** An edit that cannot be forgotten on a full disk is refused again at the next start. */
    private fun forgetQuietly() {
        try {
            store.deactivate()
        } catch (_: StorageException) {
            return
        }
    }

    /** An edit past its time gives way to the prototype that it was made around. */
    private fun retireExpired() {
        val info = (live.state as? OnEdit)?.edit?.info ?: return
        if (info.expiresAt <= clock()) {
            live.bind(OnBase)
            useGroup(info.prototype)
        }
    }

    private fun useGroup(index: Long?) {
        if (index != null && index < bundle.manifest.prototypeCount) {
            live.usePrototype(index.toInt())
        }
    }

    private companion object {
        /** Answers of the cloud that another token cures. */
        val STALE_TOKEN = listOf("token.unknown", "token.expired")

        /** Verdicts that a clock set right may turn: the edit is kept for then, but rests. */
        val CLOCK = listOf(Code.EXPIRED, Code.FROM_FUTURE)

        const val MOST_RECORDS = 200
    }
}
