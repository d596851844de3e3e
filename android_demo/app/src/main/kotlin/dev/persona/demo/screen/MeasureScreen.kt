package dev.persona.demo.screen

import dev.persona.demo.R
import dev.persona.demo.session.Action
import dev.persona.demo.session.BundleState
import dev.persona.demo.session.CloudContact
import dev.persona.demo.session.Measured
import dev.persona.demo.session.MeasuringState
import dev.persona.demo.session.PassedOver
import dev.persona.demo.session.Running
import dev.persona.demo.session.Snapshot
import dev.persona.demo.session.Step
import dev.persona.demo.session.Upload
import dev.persona.drawing.latencyHistogram
import dev.persona.drawing.measurementHistory
import dev.persona.formats.Program
import dev.persona.measure.Comparison
import dev.persona.measure.LatencyStatistics
import dev.persona.measure.Verdict
import java.util.Locale

/** The screen that measures what an edit costs on this phone. */
fun Sketch.measureScreen(snapshot: Snapshot) {
    val measuring = snapshot.measuring
    val running = (snapshot.bundle as? BundleState.Open)?.running
    masthead(text(R.string.measure), text(R.string.measure_about), program(running), Tone.MUTED, Tone.GRID)
    if (measuring is MeasuringState.Busy) {
        busy(measuring)
        return
    }
    if (running == null) {
        card { paragraph(text(R.string.measure_needs_model), Tone.MUTED) }
        return
    }
    plan(running, measuring)
    if (measuring is MeasuringState.Done) {
        measuring.failed.forEach { failed(it) }
        measuring.runs.forEach { run(it) }
        if (measuring.runs.isNotEmpty()) share(snapshot, measuring)
        history(measuring)
    }
}

private fun Sketch.program(running: Running?): String =
    running?.program?.let { name(it) } ?: text(R.string.status_no_model)

private fun name(program: Program) = "${program.target.removePrefix("executorch-")} ${program.precision.text}"

private fun Sketch.busy(state: MeasuringState.Busy) {
    card(text(R.string.measuring, name(state.program))) {
        val about = when (state.step) {
            Step.COOLING -> text(R.string.step_cooling, state.all - state.done)
            Step.LOADING -> text(R.string.step_loading)
            Step.TIMING -> text(R.string.step_timing, state.done, state.all)
        }
        progress(state.done.toFloat() / state.all, about)
        paragraph(text(R.string.keep_still), Tone.MUTED)
        button(text(R.string.stop), Action.StopMeasuring, Emphasis.TONED)
    }
}

private fun Sketch.plan(running: Running, state: MeasuringState) {
    val plan = state.plan
    card(text(R.string.plan_title)) {
        val programs = running.bundle.manifest.programs
        val chosen = plan.programs.ifEmpty { setOf(programs.indexOf(running.program)) }
        chips(
            text(R.string.programs),
            programs.mapIndexed { i, program ->
                Sketch.Choice(name(program), Action.ToggleProgram(i), i in chosen)
            },
        )
        chips(
            text(R.string.iterations),
            ITERATIONS.map { Sketch.Choice("$it", Action.ChooseIterations(it), it == plan.iterations) },
        )
        chips(
            text(R.string.cool_down),
            COOL_DOWNS.map {
                val label = if (it == 0) text(R.string.none) else text(R.string.seconds, it)
                Sketch.Choice(label, Action.ChooseCoolDown(it), it == plan.coolDownSeconds)
            },
        )
        paragraph(text(R.string.plan_about, plan.warmUp), Tone.MUTED, Sketch.SMALL)
        button(text(R.string.measure_now), Action.Measure)
    }
}

private fun Sketch.failed(failed: PassedOver) {
    banner(text(R.string.program_failed, name(failed.program)), failed.why, Tone.BAD, Tone.BAD_TINT)
}

private fun Sketch.run(run: Measured) {
    val record = run.record
    validity(run)
    card("${record.subject.target} ${record.subject.precision.text}") {
        val ratio = String.format(Locale.ROOT, "%.2f", record.ratio)
        val what = text(if (run.onEdit) R.string.ratio_edit else R.string.ratio_no_edit)
        figure(ratio, text(R.string.times), what, if (record.validity.isValid) Tone.TEXT else Tone.BAD)
        table(
            listOf(text(R.string.microseconds), "p50", "p90", "p99", text(R.string.mean)),
            listOf(quantiles(text(R.string.base), record.base), quantiles(text(R.string.edited), record.edited)),
            listOf(Tone.MUTED, Tone.EDITED),
        )
        chart(latencyHistogram(run.calls.base, run.calls.edited, room, HISTOGRAM_HEIGHT))
        comparison(run.compared)
    }
    card(text(R.string.around_title)) {
        row(text(R.string.first_load), record.load.firstEverMs?.let { ms(it) } ?: text(R.string.unknown))
        row(text(R.string.cold_load), record.load.coldMs?.let { ms(it) } ?: text(R.string.unknown))
        row(text(R.string.warm_load), ms(record.load.warmMs))
        row(text(R.string.edit_to_active), record.editToActiveMs?.let { ms(it) } ?: text(R.string.no_edit_yet))
        row(text(R.string.memory), record.memoryKb?.let { bytes(it * 1_024) } ?: text(R.string.unknown))
        row(
            text(R.string.thermal),
            text(R.string.before_after, text(record.thermalBefore.wording), text(record.thermalAfter.wording)),
            if (record.thermalBefore.throttles || record.thermalAfter.throttles) Tone.BAD else Tone.TEXT,
        )
        row(text(R.string.calls), text(R.string.calls_of_each, record.base.count, record.warmUp))
    }
    accelerators(run.delegates)
}

private fun Sketch.validity(run: Measured) {
    val validity = run.record.validity
    if (validity.isValid) {
        banner(text(R.string.valid_title), text(R.string.valid_about), Tone.GOOD, Tone.GOOD_TINT)
    } else {
        val reasons = validity.reasons.joinToString(" ") { "${text(it.wording)} [${it.code}]" }
        banner(text(R.string.invalid_title), reasons, Tone.BAD, Tone.BAD_TINT)
    }
}

private fun quantiles(name: String, of: LatencyStatistics) =
    listOf(name, us(of.p50), us(of.p90), us(of.p99), us(of.mean))

private fun Sketch.comparison(compared: Comparison?) {
    if (compared !is Comparison.Comparable) return
    val percent = String.format(Locale.ROOT, "%+.1f %%", (compared.factor - 1) * 100)
    val tone = when (compared.verdict) {
        Verdict.FASTER -> Tone.GOOD
        Verdict.SAME -> Tone.MUTED
        Verdict.SLOWER -> Tone.BAD
    }
    row(text(R.string.against_baseline), percent, tone)
}

/** Backends of each method's delegates, as the program names them, or the fallback by its name. */
private fun Sketch.accelerators(delegates: Map<String, List<String>>) {
    card(text(R.string.accelerators_title)) {
        for ((method, backends) in delegates.toSortedMap()) {
            val found = backends.distinct()
            if (found.isEmpty()) {
                row(method, text(R.string.portable_kernels), Tone.WARNING)
            } else {
                row(method, found.joinToString { name -> "$name × ${backends.count { it == name }}" })
            }
        }
        paragraph(text(R.string.accelerators_about), Tone.MUTED, Sketch.SMALL)
    }
}

private fun Sketch.share(snapshot: Snapshot, state: MeasuringState.Done) {
    val counts = state.runs.any { it.record.validity.isValid }
    card(text(R.string.report_title)) {
        when (val upload = state.upload) {
            is Upload.None -> Unit
            is Upload.Sent -> banner(text(R.string.sent), "", Tone.GOOD, Tone.GOOD_TINT)
            is Upload.Failed -> banner(text(R.string.not_sent), upload.why, Tone.WARNING, Tone.WARNING_TINT)
        }
        val online = snapshot.cloud !is CloudContact.None
        buttons(
            listOf(
                Sketch.Choice(text(R.string.share), Action.Share),
                Sketch.Choice(text(R.string.upload), Action.Upload, enabled = counts && online),
            ),
            Emphasis.TONED,
        )
        button(text(R.string.keep_baseline), Action.KeepAsBaseline, Emphasis.PLAIN, enabled = counts)
        paragraph(text(R.string.report_about), Tone.MUTED, Sketch.SMALL)
    }
}

private fun Sketch.history(state: MeasuringState.Done) {
    val newest = state.history.lastOrNull() ?: return
    val same = state.history.filter { it.model == newest.model && it.target == newest.target && it.precision == newest.precision }
    card(text(R.string.history_title)) {
        chart(measurementHistory(same, state.baseline, room, HISTORY_HEIGHT))
    }
}

private val ITERATIONS = listOf(50, 200, 1_000)
private val COOL_DOWNS = listOf(0, 10, 60)
private const val HISTOGRAM_HEIGHT = 190f
private const val HISTORY_HEIGHT = 150f
