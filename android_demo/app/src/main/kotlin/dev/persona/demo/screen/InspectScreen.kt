package dev.persona.demo.screen

import dev.persona.demo.R
import dev.persona.demo.session.BundleState
import dev.persona.demo.session.Running
import dev.persona.demo.session.Snapshot
import dev.persona.device.OnBase
import dev.persona.device.OnEdit
import dev.persona.device.OnPrototype
import dev.persona.drawing.SlotUse
import dev.persona.drawing.prototypeMap
import dev.persona.drawing.slotSizes
import dev.persona.formats.Port
import dev.persona.formats.SlotSpec
import dev.persona.formats.StepResult
import dev.persona.formats.verificationSteps
import kotlin.math.abs
import kotlin.math.max

/** The screen that opens the bundle and what was done with edits. */
fun Sketch.inspectScreen(snapshot: Snapshot) {
    val running = (snapshot.bundle as? BundleState.Open)?.running
    val status = running?.let { text(if (it.pinned) R.string.pinned else R.string.not_pinned) }
    masthead(
        text(R.string.inspect),
        text(R.string.inspect_about),
        status ?: text(R.string.status_no_model),
        if (running?.pinned == true) Tone.GOOD else Tone.MUTED,
        if (running?.pinned == true) Tone.GOOD_TINT else Tone.GRID,
    )
    if (running == null) {
        noModel(snapshot.bundle)
        card { paragraph(text(R.string.inspect_needs_model), Tone.MUTED) }
        return
    }
    manifest(running)
    programs(running)
    slots(running)
    prototypes(running)
    verification(running)
    log(running)
}

private fun Sketch.manifest(running: Running) {
    val manifest = running.bundle.manifest
    card(text(R.string.manifest_title)) {
        row(text(R.string.digest), running.bundle.digest.chunked(4).take(6).joinToString(" ") + " …", mono = true)
        row(text(R.string.signed_by), running.bundle.keyId, mono = true)
        row(text(R.string.task), manifest.task.text)
        row(text(R.string.created), manifest.createdAt)
        row(text(R.string.inputs), manifest.inputs.joinToString { port(it) })
        row(text(R.string.outputs), manifest.outputs.joinToString { port(it) })
        row(text(R.string.files), text(R.string.files_about, manifest.files.size, bytes(manifest.files.values.sumOf { it.size })))
        row(text(R.string.edit_keys), manifest.editKeys.joinToString { it.id }, mono = true)
        if (!running.pinned) paragraph(text(R.string.not_pinned_about), Tone.WARNING, Sketch.SMALL)
    }
}

private fun port(port: Port): String =
    "${port.name} ${port.shape.joinToString(" × ") { if (it < 0) "n" else "$it" }}"

private fun Sketch.programs(running: Running) {
    card(text(R.string.programs_title)) {
        for (program in running.bundle.manifest.programs) {
            val passedOver = running.passedOver.firstOrNull { it.program == program }
            val (state, tone) = when {
                program == running.program -> text(R.string.runs_here) to Tone.GOOD
                passedOver != null -> text(R.string.cannot_run_here) to Tone.BAD
                else -> program.verified.text to Tone.MUTED
            }
            row("${program.target} ${program.precision.text}", state, tone)
            passedOver?.let { paragraph(it.why, Tone.MUTED, Sketch.SMALL) }
        }
        for ((method, backends) in running.delegates.toSortedMap()) {
            val used = backends.distinct().joinToString().ifEmpty { text(R.string.portable_kernels) }
            row(text(R.string.method, method), used)
        }
    }
}

private fun Sketch.slots(running: Running) {
    val slots = running.bundle.manifest.slots
    card(text(R.string.slots_title)) {
        for (slot in slots) row(slot.name, text(R.string.slot_about, slot.kind.text, shape(slot), slot.bound.toString()))
        paragraph(text(R.string.slots_about), Tone.MUTED, Sketch.SMALL)
        chart(slotSizes(slots.map { SlotUse(it.name, use(running, it)) }, room))
    }
}

private fun shape(slot: SlotSpec): String = if (slot.columns == 0L) "${slot.rows}" else "${slot.rows} × ${slot.columns}"

/** The largest share of its bound that the edit in use takes of a slot. */
private fun use(running: Running, slot: SlotSpec): Float {
    val edit = if (running.live is OnPrototype) running.changes.first else running.changes.second
    return slot.limits.maxOf { (suffix, limit) ->
        val values = edit["${slot.name}.$suffix"]?.values ?: return@maxOf 0f
        if (limit == 0f) 0f else values.fold(0f) { most, value -> max(most, abs(value)) } / limit
    }
}

private fun Sketch.prototypes(running: Running) {
    val count = running.bundle.manifest.prototypeCount
    if (count == 0L) return
    card(text(R.string.prototypes_title, count)) {
        paragraph(text(R.string.prototypes_about), Tone.MUTED, Sketch.SMALL)
        val chosen = when (val live = running.live) {
            is OnBase -> null
            is OnPrototype -> live.index
            is OnEdit -> live.edit.info.prototype?.toInt()
        }
        chart(prototypeMap(running.bundle.prototypes.changes, running.changes, chosen, room, MAP_HEIGHT))
    }
}

/** Every rule of the last edit's verification, with what became of it. */
private fun Sketch.verification(running: Running) {
    val last = running.records.lastOrNull { it.code != null || running.live is OnEdit } ?: return
    card(text(R.string.verification_title)) {
        val steps = verificationSteps(last.code)
        val failed = steps.firstOrNull { it.result == StepResult.FAILED }
        if (failed == null) {
            banner(text(R.string.all_passed, steps.size), text(R.string.all_passed_about), Tone.GOOD, Tone.GOOD_TINT)
        } else {
            banner(text(R.string.edit_refused_title, failed.code.text), last.about, Tone.BAD, Tone.BAD_TINT)
        }
        for (step in steps) {
            val (sign, tone) = when (step.result) {
                StepResult.PASSED -> text(R.string.passed) to Tone.GOOD
                StepResult.FAILED -> text(R.string.failed) to Tone.BAD
                StepResult.NOT_REACHED -> text(R.string.not_reached) to Tone.MUTED
            }
            row(step.code.text, sign, tone)
        }
    }
}

private fun Sketch.log(running: Running) {
    card(text(R.string.log_title)) {
        if (running.records.isEmpty()) paragraph(text(R.string.log_empty), Tone.MUTED)
        for (record in running.records.takeLast(SHOWN_RECORDS).asReversed()) {
            val tone = if (record.code == null) Tone.TEXT else Tone.BAD
            paragraph("${record.at.toString().substring(11, 19)}  ${record.about}", tone, Sketch.SMALL)
        }
    }
}

private const val MAP_HEIGHT = 220f
private const val SHOWN_RECORDS = 12
