package dev.persona.demo.screen

import dev.persona.demo.R
import dev.persona.demo.session.Action
import dev.persona.demo.session.BundleState
import dev.persona.demo.session.CloudContact
import dev.persona.demo.session.Endpoint
import dev.persona.demo.session.Judged
import dev.persona.demo.session.Running
import dev.persona.demo.session.SamplesView
import dev.persona.demo.session.Snapshot
import dev.persona.device.LiveState
import dev.persona.device.OnBase
import dev.persona.device.OnEdit
import dev.persona.device.OnPrototype
import dev.persona.device.Outcome
import dev.persona.drawing.Choice
import dev.persona.drawing.beforeAfterBars
import dev.persona.formats.FloatTensor
import dev.persona.formats.ItemsSpec
import java.time.Duration

/** The screen on which the phone adapts: what runs, live samples before and after, and the cloud. */
fun Sketch.personaliseScreen(snapshot: Snapshot) {
    when (val bundle = snapshot.bundle) {
        is BundleState.Open -> open(snapshot, bundle.running)
        else -> {
            masthead(
                text(R.string.app_name),
                text(R.string.app_about),
                text(R.string.status_no_model),
                Tone.MUTED,
                Tone.GRID,
            )
            waiting(bundle)
            offer(snapshot)
            connection(snapshot)
        }
    }
}

private fun Sketch.waiting(bundle: BundleState) {
    when (bundle) {
        is BundleState.Fetching -> card(text(R.string.fetching_title)) {
            val share = if (bundle.all == 0L) 0f else bundle.here.toFloat() / bundle.all
            progress(share, text(R.string.fetching_about, bytes(bundle.here), bytes(bundle.all)))
        }
        is BundleState.Checking -> card(text(R.string.checking_title)) { paragraph(text(R.string.checking_about), Tone.MUTED) }
        is BundleState.Refused, is BundleState.NoneShipped -> noModel(bundle)
        is BundleState.Absent, is BundleState.Open -> Unit
    }
}

/** Why nothing runs, where something should. */
internal fun Sketch.noModel(bundle: BundleState) {
    if (bundle is BundleState.NoneShipped) {
        banner(text(R.string.not_run_title), text(R.string.none_shipped), Tone.BAD, Tone.BAD_TINT)
    } else if (bundle is BundleState.Refused) {
        val title = bundle.code?.let { text(R.string.refused_title, it) } ?: text(R.string.not_run_title)
        banner(title, bundle.why, Tone.BAD, Tone.BAD_TINT)
    }
}

/** What a scanned link asks for. */
private fun Sketch.offer(snapshot: Snapshot) {
    if (snapshot.offered.isEmpty()) return
    card(text(R.string.offer_title), Tone.ACCENT_TINT) {
        paragraph(snapshot.offered, Tone.TEXT, Sketch.HEADING, Weight.MEDIUM)
        paragraph(text(R.string.offer_about), Tone.MUTED)
        button(text(R.string.connect), Action.Answer(connect = true))
        button(text(R.string.not_now), Action.Answer(connect = false), Emphasis.PLAIN)
    }
}

/** The address of a cloud, and what became of it. */
private fun Sketch.connection(snapshot: Snapshot) {
    (snapshot.cloud as? CloudContact.Offline)?.let {
        banner(text(R.string.unreachable_title), it.why, Tone.WARNING, Tone.WARNING_TINT)
    }
    card(text(R.string.connect_title)) {
        paragraph(text(R.string.connect_about), Tone.MUTED)
        field(text(R.string.connect_hint), Action.Connect)
        snapshot.refused?.let { banner(text(R.string.address_refused), text(reason(it)), Tone.BAD, Tone.BAD_TINT) }
        button(text(R.string.connect), Action.Connect)
    }
    card(text(R.string.scan_title)) { paragraph(text(R.string.scan_about), Tone.MUTED) }
    card(text(R.string.shipped_title)) {
        paragraph(text(R.string.shipped_about), Tone.MUTED)
        button(text(R.string.use_shipped), Action.UseShippedBundle, Emphasis.PLAIN)
    }
}

private fun reason(refusal: Endpoint.Refusal): Int =
    when (refusal) {
        Endpoint.Refusal.NOT_AN_ADDRESS -> R.string.refusal_no_address
        Endpoint.Refusal.CLEARTEXT_IN_RELEASE -> R.string.refusal_release
        Endpoint.Refusal.CLEARTEXT_TO_PUBLIC -> R.string.refusal_public
    }

private fun Sketch.open(snapshot: Snapshot, running: Running) {
    val (status, tone, tint) = status(running.live)
    val program = running.program
    masthead(
        running.bundle.manifest.model,
        text(R.string.runs_about, program.target, program.precision.text),
        status,
        tone,
        tint,
    )
    offer(snapshot)
    contact(snapshot)
    when (val samples = running.samples) {
        is SamplesView.Drawn -> drawn(running, samples)
        is SamplesView.Ranked -> ranked(samples)
        is SamplesView.Recorded -> recorded(running, samples)
    }
    asking(snapshot, running)
    currentEdit(snapshot, running)
    if (snapshot.cloud !is CloudContact.None) {
        card(text(R.string.cloud_title)) {
            paragraph(snapshot.address, Tone.MUTED)
            button(text(R.string.disconnect), Action.Disconnect, Emphasis.PLAIN)
        }
    }
}

private fun Sketch.status(live: LiveState): Triple<String, Tone, Tone> =
    when (live) {
        is OnBase -> Triple(text(R.string.on_base), Tone.MUTED, Tone.GRID)
        is OnPrototype -> Triple(text(R.string.on_prototype, live.index), Tone.WARNING, Tone.WARNING_TINT)
        is OnEdit -> Triple(text(R.string.on_edit), Tone.GOOD, Tone.GOOD_TINT)
    }

private fun Sketch.contact(snapshot: Snapshot) {
    when (val cloud = snapshot.cloud) {
        is CloudContact.Offline ->
            banner(
                text(R.string.offline_title),
                text(R.string.offline_about, age(Duration.between(cloud.since, snapshot.now))),
                Tone.WARNING,
                Tone.WARNING_TINT,
            )
        is CloudContact.None -> {
            banner(text(R.string.no_cloud_title), text(R.string.no_cloud_about), Tone.ACCENT, Tone.ACCENT_TINT)
            card(text(R.string.connect_title)) {
                field(text(R.string.connect_hint), Action.Connect)
                snapshot.refused?.let { banner(text(R.string.address_refused), text(reason(it)), Tone.BAD, Tone.BAD_TINT) }
                button(text(R.string.connect), Action.Connect, Emphasis.TONED)
            }
        }
        is CloudContact.Untried, is CloudContact.Reached -> Unit
    }
}

private fun Sketch.drawn(running: Running, samples: SamplesView.Drawn) {
    card(text(R.string.draw_title)) {
        val pad = minOf(room, PAD_HEIGHT)
        val newest = samples.recent.firstOrNull()
        val region = Region(Box(0f, 0f, pad, pad), Role.PAD, text(R.string.draw_label), Action.Draw)
        canvas(pad, region) {
            panel(0f, 0f, pad, pad, Tone.FIELD, 14f)
            panel(0f, 0f, pad, pad, Tone.OUTLINE, 14f, outlined = true)
            if (newest == null) {
                val hint = text(R.string.draw_hint)
                words(pad / 2, pad / 2 + 4f, hint, Sketch.SMALL, Tone.MUTED, place = Place.MIDDLE, most = pad)
            }
            newest?.strokes?.forEach { stroke ->
                pen(stroke.map { Spot(it.x * pad, it.y * pad) }, Tone.TEXT, 9f)
            }
            if (newest != null) {
                val beside = width - pad - 16f
                words(pad + 16f, 14f, text(R.string.seen_by_model), Sketch.SMALL, Tone.MUTED, most = beside)
                image(newest, pad + 16f, 24f, minOf(beside, pad - 60f))
            }
        }
        if (newest == null) {
            paragraph(text(R.string.draw_about, running.bundle.manifest.observation.minCount), Tone.MUTED)
        } else {
            gap(6f)
            legend()
            verdict(newest)
        }
        if (samples.recent.size > 1) thumbnails(samples.recent.drop(1))
    }
}

/** The image as the model gets it, pixel by pixel. */
private fun Sketch.Canvas.image(judged: Judged, x: Float, top: Float, side: Float) {
    val image = judged.input as? FloatTensor ?: return
    val (height, width) = image.shape[2].toInt() to image.shape[3].toInt()
    val pixel = side / maxOf(height, width)
    for (row in 0 until height) {
        for (column in 0 until width) {
            pixel(x + column * pixel, top + row * pixel, pixel, image.values[row * width + column])
        }
    }
}

private fun Sketch.legend() {
    canvas(16f) {
        panel(0f, 3f, 10f, 10f, Tone.BASE, 3f)
        words(16f, 12f, text(R.string.before), Sketch.SMALL, Tone.MUTED)
        panel(110f, 3f, 10f, 10f, Tone.EDITED, 3f)
        words(126f, 12f, text(R.string.after), Sketch.SMALL, Tone.MUTED)
    }
}

/** The likeliest classes by either model, before and after. */
private fun Sketch.verdict(judged: Judged) {
    val before = judged.before ?: judged.after
    val likeliest = judged.after.indices.sortedByDescending { maxOf(before[it], judged.after[it]) }.take(LIKELIEST)
    val choices = likeliest.sortedByDescending { judged.after[it] }
        .map { Choice(text(R.string.class_name, it), before[it], judged.after[it]) }
    chart(beforeAfterBars(choices, room))
}

/** Earlier digits with what was and is read in them. */
private fun Sketch.thumbnails(judged: List<Judged>) {
    paragraph(text(R.string.earlier), Tone.MUTED, Sketch.SMALL)
    val side = 44f
    canvas(side + 22f) {
        judged.forEachIndexed { i, sample ->
            val x = i * (side + 24f)
            panel(x, 0f, side, side, Tone.FIELD, 8f)
            sample.strokes.forEach { stroke ->
                pen(stroke.map { Spot(x + it.x * side, it.y * side) }, Tone.TEXT, 2.5f)
            }
            val now = likeliest(sample.after)
            val was = sample.before?.let(::likeliest) ?: now
            val words = if (was == now) "$now" else "$was → $now"
            val tone = if (was == now) Tone.MUTED else Tone.ACCENT
            words(x + side / 2, side + 16f, words, Sketch.BODY, tone, Weight.MEDIUM, Place.MIDDLE)
        }
    }
}

private fun likeliest(probabilities: FloatArray): Int = probabilities.indices.maxByOrNull { probabilities[it] } ?: 0

private fun Sketch.ranked(samples: SamplesView.Ranked) {
    card(text(R.string.list_title)) {
        paragraph(text(R.string.list_about), Tone.MUTED)
        for (row in samples.rows) {
            val height = Sketch.TOUCH
            val moved = row.before?.minus(row.now) ?: 0
            val about = when {
                moved > 0 -> text(R.string.moved_up, moved)
                moved < 0 -> text(R.string.moved_down, -moved)
                else -> text(R.string.not_moved)
            }
            val name = text(R.string.item_name, row.item)
            val spoken = text(R.string.item_spoken, name, row.now, about)
            val region = Region(Box(0f, 0f, room, height), Role.ITEM, spoken, Action.Swipe(row.item))
            canvas(height, region) {
                panel(0f, 0f, width, height, Tone.FIELD, 12f)
                words(28f, 29f, "${row.now}", Sketch.BODY, Tone.MUTED, Weight.MEDIUM, Place.END)
                words(44f, 29f, name, Sketch.BODY, Tone.TEXT, Weight.MEDIUM)
                val tone = if (moved > 0) Tone.GOOD else if (moved < 0) Tone.WARNING else Tone.MUTED
                words(width - 14f, 29f, about, Sketch.SMALL, tone, place = Place.END)
            }
        }
        if (samples.taken.isNotEmpty()) {
            paragraph(text(R.string.taken, samples.taken.joinToString { text(R.string.item_name, it) }), Tone.MUTED)
        }
    }
}

private fun Sketch.recorded(running: Running, samples: SamplesView.Recorded) {
    card(text(R.string.recorded_title)) {
        paragraph(text(R.string.recorded_about, running.bundle.manifest.model, samples.all), Tone.MUTED)
        samples.recent.firstOrNull()?.let {
            legend()
            verdict(it)
        }
        button(text(R.string.next_sample), Action.NextSample, Emphasis.TONED)
    }
}

private fun Sketch.asking(snapshot: Snapshot, running: Running) {
    val (count, needed) = running.samples.count to running.bundle.manifest.observation.minCount
    card(text(R.string.window_title)) {
        val about = if (count >= needed) text(R.string.window_enough, count) else text(R.string.window_more, count, needed)
        progress(count.toFloat() / needed, about)
        running.outcome?.let { outcome(it) }
        val label = when {
            running.busy -> text(R.string.asking)
            snapshot.cloud is CloudContact.None -> text(R.string.choose_group)
            else -> text(R.string.personalise_now)
        }
        button(label, Action.Personalise, enabled = count >= needed && !running.busy)
        if (snapshot.cloud !is CloudContact.None) {
            val items = running.bundle.manifest.observation is ItemsSpec
            val sent = if (items) R.string.privacy_items else R.string.privacy_pooled
            paragraph(text(sent), Tone.MUTED, Sketch.SMALL)
        }
        switch(
            text(R.string.automatic),
            text(R.string.automatic_about),
            snapshot.automatic,
            Action.ToggleAutomatic,
        )
        buttons(
            listOf(
                Sketch.Choice(text(R.string.forget_window), Action.ForgetWindow, enabled = count > 0),
                Sketch.Choice(text(R.string.roll_back), Action.RollBack, enabled = running.live !is OnBase),
            ),
            Emphasis.PLAIN,
        )
    }
}

private fun Sketch.outcome(outcome: Outcome) {
    when (outcome) {
        is Outcome.NewEdit ->
            banner(
                text(R.string.new_edit_title),
                text(R.string.new_edit_about, bytes(outcome.bytes), ms(outcome.roundTripMs), ms(outcome.toActiveMs)),
                Tone.GOOD,
                Tone.GOOD_TINT,
            )
        is Outcome.NotNeeded ->
            banner(
                text(R.string.not_needed_title),
                text(R.string.not_needed_about, percent(outcome.drift)),
                Tone.ACCENT,
                Tone.ACCENT_TINT,
            )
        is Outcome.Offline -> banner(text(R.string.went_offline_title), outcome.why, Tone.WARNING, Tone.WARNING_TINT)
        is Outcome.Refused -> {
            val title = outcome.code?.let { text(R.string.edit_refused_title, it) } ?: text(R.string.not_kept_title)
            banner(title, outcome.why, Tone.BAD, Tone.BAD_TINT)
        }
    }
}

private fun Sketch.currentEdit(snapshot: Snapshot, running: Running) {
    card(text(R.string.edit_title)) {
        when (val live = running.live) {
            is OnBase -> paragraph(text(R.string.edit_none), Tone.MUTED)
            is OnPrototype -> {
                row(text(R.string.prototype), "${live.index}")
                row(text(R.string.source), text(R.string.source_phone))
            }
            is OnEdit -> {
                val info = live.edit.info
                running.editBytes?.let { figure(bytes(it).substringBefore(' '), bytes(it).substringAfter(' '), text(R.string.edit_size)) }
                row(text(R.string.prototype), info.prototype?.toString() ?: text(R.string.none))
                row(text(R.string.source), text(R.string.source_cloud, info.sequence))
                row(text(R.string.age), age(Duration.between(info.issuedAt, snapshot.now)))
                row(text(R.string.expires_in), age(Duration.between(snapshot.now, info.expiresAt)))
            }
        }
    }
}

private const val PAD_HEIGHT = 190f
private const val LIKELIEST = 3
