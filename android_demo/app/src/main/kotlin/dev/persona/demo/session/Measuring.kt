package dev.persona.demo.session

import dev.persona.device.Bundle
import dev.persona.device.Device
import dev.persona.device.Engine
import dev.persona.device.EngineException
import dev.persona.device.OnEdit
import dev.persona.formats.Measurement
import dev.persona.formats.PersonaError
import dev.persona.formats.Program
import dev.persona.formats.write
import dev.persona.measure.BenchmarkHost
import dev.persona.measure.BenchmarkRecord
import dev.persona.measure.BenchmarkSubject
import dev.persona.measure.Comparison
import dev.persona.measure.HistoryEntry
import dev.persona.measure.InterleavedRun
import dev.persona.measure.LatencyStatistics
import dev.persona.measure.LoadTimes
import dev.persona.measure.MeasurementHistory
import dev.persona.measure.Validity
import dev.persona.measure.benchmarkJson
import dev.persona.measure.compare
import dev.persona.measure.interleaved
import java.io.File
import java.time.Instant

/**
 * What to measure.
 *
 * @property programs places in the manifest's list; empty means the one that runs
 */
data class MeasurePlan(
    val programs: Set<Int> = emptySet(),
    val iterations: Int = 200,
    val warmUp: Int = 50,
    val coolDownSeconds: Int = 10,
)

/** What the measuring screen shows. */
sealed interface MeasuringState {
    val plan: MeasurePlan

    /** Nothing was measured since the bundle was opened. */
    data class Idle(override val plan: MeasurePlan) : MeasuringState

    /** [done] of [all] seconds or calls of a step. */
    data class Busy(
        override val plan: MeasurePlan,
        val program: Program,
        val step: Step,
        val done: Int,
        val all: Int,
    ) : MeasuringState

    /**
     * A run of each program that was chosen, and of those that could not the reasons.
     *
     * @property entry in the history; null for a run that does not count
     * @property upload what became of sending it
     */
    data class Done(
        override val plan: MeasurePlan,
        val runs: List<Measured>,
        val failed: List<PassedOver>,
        val history: List<HistoryEntry>,
        val baseline: HistoryEntry?,
        val upload: Upload = Upload.None,
    ) : MeasuringState
}

/** What is being done. */
enum class Step {
    COOLING,
    LOADING,
    TIMING,
}

/** What became of sending the runs to the cloud. */
sealed interface Upload {
    object None : Upload

    object Sent : Upload

    data class Failed(val why: String) : Upload
}

/**
 * One run.
 *
 * @property calls single calls, for the histogram
 * @property onEdit whether an edit ran; else prototype or base took its place
 * @property delegates backends of each method
 * @property compared with the baseline; null where there is none or the run does not count
 */
class Measured(
    val record: BenchmarkRecord,
    val calls: InterleavedRun,
    val onEdit: Boolean,
    val delegates: Map<String, List<String>>,
    val compared: Comparison?,
)

/**
 * Measures what a bundle's programs cost on this phone: cool-down, loads, warm-up, then base and
 * edited in turn, with memory and heat around them.
 */
class Measuring(
    private val phone: Phone,
    private val clock: () -> Instant,
    private val show: (MeasuringState) -> Unit,
) {
    private val firstEver = File(phone.files, "first-loads")
    private val coldMs = HashMap<String, Double>()
    private val history by lazy { MeasurementHistory(File(phone.files, "history.json")) }
    private var editToActiveMs: Double? = null

    @Volatile
    private var stopped = false

    var state: MeasuringState = MeasuringState.Idle(MeasurePlan())
        private set(value) {
            field = value
            show(value)
        }

    /** Loads a program and keeps how long it took: ever, and since the app's start. */
    fun load(bundle: Bundle, program: Program): RunningProgram {
        val (running, ms) = timed { phone.engine(bundle.folder, program) }
        coldMs.getOrPut(key(bundle, program)) { ms }
        val file = File(firstEver, key(bundle, program))
        if (!file.exists()) {
            firstEver.mkdirs()
            file.writeText(ms.toString())
        }
        return running
    }

    /** A new edit became active. */
    fun activated(ms: Double) {
        editToActiveMs = ms
    }

    /** Changes the plan. */
    fun choose(action: Action) {
        val plan = state.plan
        val next = when (action) {
            is Action.ToggleProgram -> plan.copy(programs = toggled(plan.programs, action.index))
            is Action.ChooseIterations -> plan.copy(iterations = action.count)
            is Action.ChooseCoolDown -> plan.copy(coolDownSeconds = action.seconds)
            else -> return
        }
        state = when (val now = state) {
            is MeasuringState.Idle -> now.copy(plan = next)
            is MeasuringState.Done -> now.copy(plan = next)
            is MeasuringState.Busy -> now
        }
    }

    private fun toggled(programs: Set<Int>, index: Int) =
        if (index in programs) programs - index else programs + index

    /** Ends the run; heard between two calls of the model. */
    fun stop() {
        stopped = true
    }

    /**
     * Measures what the plan says. No other engine may be open.
     *
     * @param running the program that was running, for a [plan] that names none
     * @param device makes the app's device on an engine: its edit is what is timed
     */
    fun run(
        bundle: Bundle,
        running: Program,
        plan: MeasurePlan,
        device: (Program, Engine) -> Device,
    ) {
        stopped = false
        val chosen = plan.programs.map { bundle.manifest.programs[it] }.ifEmpty { listOf(running) }
        val runs = ArrayList<Measured>()
        val failed = ArrayList<PassedOver>()
        for (program in chosen) {
            try {
                coolDown(plan, program)
                if (!stopped) runs += measured(bundle, program, plan, device)
            } catch (error: EngineException) {
                failed += PassedOver(program, "${error.message}")
            } catch (error: PersonaError) {
                failed += PassedOver(program, error.explanation)
            }
        }
        state = MeasuringState.Done(plan, runs, failed, history.entries, history.baseline)
    }

    private fun coolDown(plan: MeasurePlan, program: Program) {
        for (second in 0 until plan.coolDownSeconds) {
            if (stopped) return
            state = MeasuringState.Busy(plan, program, Step.COOLING, second, plan.coolDownSeconds)
            Thread.sleep(SECOND_MS)
        }
    }

    private fun measured(
        bundle: Bundle,
        program: Program,
        plan: MeasurePlan,
        deviceOn: (Program, Engine) -> Device,
    ): Measured {
        state = MeasuringState.Busy(plan, program, Step.LOADING, 0, 1)
        load(bundle, program).engine.close()
        val (running, warmMs) = timed { phone.engine(bundle.folder, program) }
        return running.engine.use {
            if (!running.hasBase) {
                throw EngineException("${program.target} has no method to measure against; export it with one")
            }
            val device = deviceOn(program, running.engine)
            val before = phone.thermal()
            val calls = timedCalls(bundle, device, plan, program)
            val record = BenchmarkRecord(
                at = clock(),
                subject = BenchmarkSubject(
                    bundle.manifest.model,
                    bundle.digest,
                    program.target,
                    program.precision,
                    running.delegates[program.method].orEmpty(),
                ),
                host = BenchmarkHost(phone.machine, phone.system, phone.abi, phone.cores, phone.threads),
                warmUp = calls.warmUp,
                base = LatencyStatistics.of(calls.base),
                edited = LatencyStatistics.of(calls.edited),
                load = loads(bundle, program, warmMs),
                editToActiveMs = editToActiveMs.takeIf { device.state is OnEdit },
                memoryKb = phone.pssKb(),
                thermalBefore = before,
                thermalAfter = phone.thermal(),
                validity = Validity.of(calls, before, phone.thermal()),
            )
            val entry = if (record.validity.isValid) history.add(record) else null
            val compared = history.baseline?.let { base -> entry?.let { compare(it, base) } }
            Measured(record, calls, device.state is OnEdit, running.delegates, compared)
        }
    }

    private fun timedCalls(bundle: Bundle, device: Device, plan: MeasurePlan, program: Program): InterleavedRun {
        val inputs = bundle.manifest.inputs.map { bundle.golden.inputs[0].getValue(it.name) }
        var calls = 0
        var shownAt = 0L
        return interleaved(
            plan.warmUp,
            plan.iterations,
            MINIMUM_MS,
            { device.predictBase(inputs) },
            { device.predict(inputs) },
        ) {
            calls++
            // Seldom, for drawing takes time that the calls are to have.
            if (System.nanoTime() - shownAt > SHOWN_EVERY_NS) {
                shownAt = System.nanoTime()
                val done = minOf(calls, plan.iterations)
                state = MeasuringState.Busy(plan, program, Step.TIMING, done, plan.iterations)
            }
            // One pair at least, or there is nothing to summarise.
            !stopped || calls <= 1
        }
    }

    private fun loads(bundle: Bundle, program: Program, warmMs: Double) = LoadTimes(
        firstEverMs = File(firstEver, key(bundle, program)).readText().toDoubleOrNull(),
        coldMs = coldMs[key(bundle, program)],
        warmMs = warmMs,
    )

    private fun key(bundle: Bundle, program: Program) =
        "${bundle.digest.take(16)}-${program.target}-${program.precision.text}"

    /** Compares later runs with the last one that counts. */
    fun keepAsBaseline() {
        val done = state as? MeasuringState.Done ?: return
        val entry = history.entries.lastOrNull() ?: return
        history.chooseBaseline(entry)
        state = done.copy(baseline = entry)
    }

    /** Sends the runs that count with [send], which gives the reason where it cannot. */
    fun upload(send: (Measurement) -> String?) {
        val done = state as? MeasuringState.Done ?: return
        val failure = done.runs
            .filter { it.record.validity.isValid }
            .firstNotNullOfOrNull { send(it.record.measurement()) }
        state = done.copy(upload = failure?.let { Upload.Failed(it) } ?: Upload.Sent)
    }

    /** The runs as minibench writes them; null before the first. */
    fun report(): String? =
        (state as? MeasuringState.Done)?.let { done -> benchmarkJson(done.runs.map { it.record }).write() }

    private companion object {
        const val SECOND_MS = 1_000L
        const val MINIMUM_MS = 1_000.0
        const val SHOWN_EVERY_NS = 500_000_000L

        fun <T> timed(action: () -> T): Pair<T, Double> {
            val start = System.nanoTime()
            val made = action()
            return made to (System.nanoTime() - start) / 1e6
        }
    }
}
