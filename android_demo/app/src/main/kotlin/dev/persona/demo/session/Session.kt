package dev.persona.demo.session

import dev.persona.device.Bundle
import dev.persona.device.BundleDownload
import dev.persona.device.CloudClient
import dev.persona.device.CloudError
import dev.persona.device.Device
import dev.persona.device.EngineException
import dev.persona.device.LearnedKeys
import dev.persona.device.OfflineException
import dev.persona.device.Outcome
import dev.persona.device.Personalisation
import dev.persona.device.StorageException
import dev.persona.device.SwapRecord
import dev.persona.device.Window
import dev.persona.formats.ItemsSpec
import dev.persona.formats.LongTensor
import dev.persona.formats.PersonaError
import dev.persona.formats.Program
import dev.persona.formats.PublicKeys
import java.io.File
import java.time.Instant
import java.util.concurrent.Executor

/**
 * What the app does, without any of Android: it fetches and opens a bundle, keeps the window of live
 * samples, asks the cloud, measures, and says after each step what there is to be seen.
 *
 * Everything runs in turn on [worker], never on the thread that draws; [listener] hears of each new
 * [snapshot] there.
 *
 * @property remembers whether address, bundle and choices are kept for the next start
 */
class Session(
    private val phone: Phone,
    private val worker: Executor,
    private val listener: (Snapshot) -> Unit,
    private val clock: () -> Instant = Instant::now,
    private val remembers: Boolean = true,
) {
    @Volatile
    var snapshot = Snapshot()
        private set

    private val settingsFile = File(phone.files, "settings.json")
    private val bundles = File(phone.files, "bundles")
    private val deviceFolder = File(phone.files, "device")
    private var settings = Settings()
    private var cloud: CloudClient? = null
    private var offered = ""
    private var open: OpenBundle? = null
    private var outcome: Outcome? = null
    private var busy = false
    private var earlier = emptyList<SwapRecord>()
    private val measuring = Measuring(phone, clock) { state -> show { it.copy(measuring = state) } }

    /** A bundle with its device, as long as it is run. */
    private class OpenBundle(
        val bundle: Bundle,
        val pinned: Boolean,
        val running: RunningProgram,
        val passedOver: List<PassedOver>,
        val device: Device,
        var samples: Samples,
    ) {
        val judge: Judge
            get() = Judge(device, running.hasBase)
    }

    /** Goes on where the app was left: with the last bundle, or with the one that the app ships. */
    fun start() = work {
        bundles.mkdirs()
        settings = Settings.load(settingsFile)
        use(settings.address, fetch = false)
        show { it.copy(automatic = settings.automatic) }
        val last = File(bundles, settings.bundle)
        if (settings.bundle.isNotEmpty() && last.isDirectory) run(last)
    }

    /** Connects to a cloud and runs its bundle. */
    fun connect(address: String) = work { use(address, fetch = true) }

    /** A link brought an address. Anybody can make a link, so a person is asked first. */
    fun offer(link: String) = work {
        offered = link
        show { it.copy(offered = Endpoint.linked(link)) }
    }

    /** Runs the bundle in a folder, as a device farm puts it there. */
    fun run(folder: File, address: String) = work {
        use(address, fetch = false)
        run(folder)
    }

    /** A digit was drawn. */
    fun drew(strokes: List<Stroke>) = sampled { (it as? Samples.Drawn)?.add(strokes) }

    /** An item was swiped: taken, or passed over. */
    fun swiped(item: Long, taken: Boolean) = sampled { samples ->
        (samples as? Samples.Ranked)?.run { if (taken) take(item) else pass(item) }
    }

    /** Does what was asked for; what needs more than the action itself has a function of its own. */
    fun perform(action: Action) = work {
        when (action) {
            is Action.Answer -> answer(action.connect)
            is Action.Disconnect -> disconnect()
            is Action.UseShippedBundle -> useShipped()
            is Action.Personalise -> personalise()
            is Action.ToggleAutomatic -> toggleAutomatic()
            is Action.RollBack -> live { it.device.rollBack() }
            is Action.ForgetWindow -> live { it.samples.forget() }
            is Action.NextSample -> sample { (it as? Samples.Recorded)?.next() }
            is Action.Measure -> measured(measuring.state.plan)
            is Action.KeepAsBaseline -> measuring.keepAsBaseline()
            is Action.Upload -> upload()
            else -> measuring.choose(action)
        }
    }

    /** Ends a running measurement; it is heard between two calls of the model. */
    fun stopMeasuring() = measuring.stop()

    /** The last measurement as JSON, for the system's share sheet; null before the first. */
    fun report(): String? = measuring.report()

    private fun work(action: () -> Unit) = worker.execute {
        try {
            action()
        } catch (error: StorageException) {
            show { it.copy(bundle = BundleState.Refused(null, "${error.message}")) }
        }
    }

    private fun show(change: (Snapshot) -> Snapshot) {
        snapshot = change(snapshot).copy(now = clock())
        listener(snapshot)
    }

    private fun save(changed: Settings) {
        settings = changed
        if (remembers) changed.save(settingsFile)
    }

    private fun use(address: String, fetch: Boolean) {
        val endpoint = if (address.isEmpty()) null else Endpoint.of(address, phone.debug)
        if (endpoint is Endpoint.Refusal) {
            show { it.copy(address = Endpoint.linked(address), refused = endpoint) }
            return
        }
        val usable = endpoint as Endpoint.Usable?
        cloud = usable?.let { CloudClient(it.url) }
        save(settings.copy(address = usable?.url.orEmpty()))
        val contact = if (usable == null) CloudContact.None else CloudContact.Untried
        show { it.copy(address = settings.address, refused = null, cloud = contact) }
        cloud?.takeIf { fetch }?.let { fetch(it, usable?.publisher) }
    }

    private fun answer(connect: Boolean) {
        val link = offered
        offered = ""
        show { it.copy(offered = "") }
        if (connect) use(link, fetch = true)
    }

    private fun disconnect() {
        cloud = null
        save(settings.copy(address = ""))
        show { it.copy(address = "", refused = null, cloud = CloudContact.None) }
    }

    /** [publisher]: id of the key that must have signed the bundle; null for any trusted one. */
    private fun fetch(from: CloudClient, publisher: String?) {
        val before = snapshot.bundle
        show { it.copy(bundle = BundleState.Fetching(0, 0)) }
        try {
            val model = from.models().firstOrNull()?.model
                ?: throw CloudError("http.error", "the cloud has no model")
            val fetched = BundleDownload(from, bundles, keys(), clock).fetch(model, publisher) { here, all ->
                show { it.copy(bundle = BundleState.Fetching(here, all)) }
            }
            reached()
            run(fetched.folder)
        } catch (error: OfflineException) {
            offline("${error.message}")
            show { it.copy(bundle = if (open == null) BundleState.Absent else before) }
        } catch (error: CloudError) {
            show { it.copy(bundle = BundleState.Refused(error.code, "${error.message}")) }
        } catch (error: PersonaError) {
            show { it.copy(bundle = BundleState.Refused(error.code.text, error.explanation)) }
        }
    }

    private fun useShipped() {
        val unpacked = File(bundles, "shipped")
        if (phone.unpackShippedBundle(unpacked)) {
            run(unpacked)
        } else {
            show { it.copy(bundle = BundleState.NoneShipped) }
        }
    }

    private fun pinned(): PublicKeys? = phone.publishers().takeIf { it.isNotEmpty() }?.let { PublicKeys(it) }

    /** The keys that the app pins, or what the device has learned in their place; null without any. */
    private fun keys(): LearnedKeys? = pinned()?.let { LearnedKeys(deviceFolder, it) }

    /** Verifies a bundle and runs the best of its programs that this phone can. */
    private fun run(folder: File) {
        close()
        show { it.copy(bundle = BundleState.Checking) }
        try {
            val trusted = keys()?.bundleKeys
            val bundle = Bundle.open(folder, trusted)
            open = opened(bundle, trusted != null)
            if (folder.parentFile == bundles) save(settings.copy(bundle = folder.name))
            showRunning()
        } catch (error: PersonaError) {
            show { it.copy(bundle = BundleState.Refused(error.code.text, error.explanation)) }
        } catch (error: EngineException) {
            show { it.copy(bundle = BundleState.Refused(null, "${error.message}")) }
        }
    }

    private fun close() {
        open?.running?.engine?.close()
        open = null
        outcome = null
        earlier = emptyList()
    }

    /** Programs of this build's targets, in the order of preference, until one runs and holds. */
    private fun opened(bundle: Bundle, pinned: Boolean): OpenBundle {
        val candidates = candidates(bundle)
        val passedOver = ArrayList<PassedOver>()
        for (program in candidates) {
            val last = program == candidates.last()
            try {
                val running = measuring.load(bundle, program)
                val device = device(bundle, program, running)
                val samples = Samples.of(bundle, Judge(device, running.hasBase))
                return OpenBundle(bundle, pinned, running, passedOver, device, samples)
            } catch (error: EngineException) {
                if (last) throw error
                passedOver += PassedOver(program, "${error.message}")
            } catch (error: PersonaError) {
                if (last) throw error
                passedOver += PassedOver(program, error.explanation)
            }
        }
        throw EngineException(
            "the bundle has no program for ${phone.targets.joinToString(" or ")}; it has " +
                bundle.manifest.programs.joinToString { it.target },
        )
    }

    private fun candidates(bundle: Bundle): List<Program> =
        phone.targets.flatMap { target -> bundle.manifest.programs.filter { it.target == target } }

    private fun device(bundle: Bundle, program: Program, running: RunningProgram): Device =
        try {
            Device(bundle, program, running.engine, deviceFolder, pinned())
        } catch (error: PersonaError) {
            running.engine.close()
            throw error
        } catch (error: EngineException) {
            running.engine.close()
            throw error
        }

    private fun live(action: (OpenBundle) -> Unit) {
        val current = open ?: return
        action(current)
        current.samples.refresh()
        showRunning()
    }

    private fun sampled(add: (Samples) -> Unit) = work { sample(add) }

    private fun sample(add: (Samples) -> Unit) {
        val current = open ?: return
        add(current.samples)
        showRunning()
        val window = current.samples.window ?: return
        val enough = current.samples.view.count >= current.bundle.manifest.observation.minCount
        if (settings.automatic && enough) {
            ask(current) { device, client -> device.personaliseIfDrifted(client, window) }
        }
    }

    private fun toggleAutomatic() {
        save(settings.copy(automatic = !settings.automatic))
        show { it.copy(automatic = settings.automatic) }
    }

    private fun personalise() {
        val current = open ?: return
        val window = current.samples.window ?: return
        ask(current) { device, client -> device.personalise(client, window) }
    }

    private fun ask(current: OpenBundle, question: (Device, CloudClient) -> Personalisation) {
        val client = cloud
        if (client == null) {
            alone(current)
            return
        }
        busy = true
        showRunning()
        val answer = question(current.device, client).outcome
        busy = false
        outcome = answer
        when (answer) {
            is Outcome.NewEdit -> {
                measuring.activated(answer.toActiveMs)
                reached()
            }
            is Outcome.Offline -> offline(answer.why)
            is Outcome.NotNeeded, is Outcome.Refused -> Unit
        }
        current.samples.refresh()
        showRunning()
    }

    /** An edit from the golden inputs, where nobody is there to give samples. */
    fun personaliseOnGolden() = work {
        open?.let { current ->
            goldenWindow(current)?.let { window ->
                ask(current) { device, client -> device.personalise(client, window) }
            }
        }
    }

    private fun goldenWindow(current: OpenBundle): Window? {
        val manifest = current.bundle.manifest
        if (manifest.observation is ItemsSpec) {
            val items = current.bundle.golden.inputs
                .flatMap { (it.getValue(manifest.inputs[0].name) as LongTensor).values.toList() }
            return Window.Items(items.filter { it > 0 }.toLongArray())
        }
        val samples = Samples.Recorded.of(current.bundle, current.judge)
        repeat(manifest.observation.minCount.toInt()) { samples.next() }
        return samples.window
    }

    /** Without a cloud: the group that the phone chooses itself. */
    private fun alone(current: OpenBundle) {
        val window: Window = current.samples.window ?: return
        try {
            current.device.fallBack(current.device.observe(window))
            outcome = null
        } catch (error: PersonaError) {
            outcome = Outcome.Refused(error.code.text, error.explanation)
        } catch (error: EngineException) {
            outcome = Outcome.Refused(null, "${error.message}")
        }
        current.samples.refresh()
        showRunning()
    }

    private fun reached() = show { it.copy(cloud = CloudContact.Reached(clock())) }

    private fun offline(why: String) = show {
        val since = (it.cloud as? CloudContact.Offline)?.since ?: clock()
        it.copy(cloud = CloudContact.Offline(since, why))
    }

    /** Measures what a plan says; [Action.Measure] does it with the plan on the screen. */
    fun measure(plan: MeasurePlan) = work { measured(plan) }

    private fun measured(plan: MeasurePlan) {
        val current = open ?: return
        val (samples, before) = current.samples to outcome
        val log = earlier + current.device.history
        val (bundle, program) = current.bundle to current.device.program
        close()
        measuring.run(bundle, program, plan) { chosen, engine ->
            Device(bundle, chosen, engine, deviceFolder, pinned())
        }
        run(bundle.folder)
        outcome = before
        earlier = log
        open?.let {
            samples.judgeWith(it.judge)
            it.samples = samples
        }
        showRunning()
    }

    private fun upload() {
        val current = open ?: return
        val client = cloud ?: return
        measuring.upload { measurement ->
            try {
                current.device.report(client, measurement)
                reached()
                null
            } catch (error: OfflineException) {
                offline("${error.message}")
                "${error.message}"
            } catch (error: CloudError) {
                "${error.message}"
            }
        }
    }

    private fun showRunning() {
        val current = open ?: return
        val device = current.device
        show {
            it.copy(
                bundle = BundleState.Open(
                    Running(
                        bundle = current.bundle,
                        pinned = current.pinned,
                        program = device.program,
                        delegates = current.running.delegates,
                        passedOver = current.passedOver,
                        live = device.state,
                        editBytes = device.editBytes,
                        changes = device.changes,
                        samples = current.samples.view,
                        busy = busy,
                        outcome = outcome,
                        records = earlier + device.history,
                    ),
                ),
            )
        }
    }
}
