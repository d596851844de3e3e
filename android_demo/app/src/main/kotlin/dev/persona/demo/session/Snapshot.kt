package dev.persona.demo.session

import dev.persona.device.Bundle
import dev.persona.device.LiveState
import dev.persona.device.Outcome
import dev.persona.device.SwapRecord
import dev.persona.formats.Program
import dev.persona.formats.SlotTensors
import java.time.Instant

/**
 * Everything that the screens show at one moment.
 *
 * @property address of the cloud, as the person gave it; empty without one
 * @property offered address that a link brought; a person decides about it
 * @property refused why an address was not taken
 */
data class Snapshot(
    val address: String = "",
    val offered: String = "",
    val refused: Endpoint.Refusal? = null,
    val cloud: CloudContact = CloudContact.None,
    val bundle: BundleState = BundleState.Absent,
    val automatic: Boolean = false,
    val measuring: MeasuringState = MeasuringState.Idle(MeasurePlan()),
    val now: Instant = Instant.EPOCH,
)

/** What is known of the cloud. */
sealed interface CloudContact {
    /** No address was given. */
    object None : CloudContact

    /** It has not been asked yet. */
    object Untried : CloudContact

    data class Reached(val at: Instant) : CloudContact

    data class Offline(val since: Instant, val why: String) : CloudContact
}

/** Whether there is a model to run. */
sealed interface BundleState {
    object Absent : BundleState

    /** The bundle of the app itself was asked for, and there is none. */
    object NoneShipped : BundleState

    /** On its way from the cloud. */
    data class Fetching(val here: Long, val all: Long) : BundleState

    /** Files are there; program and golden vectors are being checked. */
    object Checking : BundleState

    /** It could not be fetched, verified or run. [code] is stable where there is one. */
    data class Refused(val code: String?, val why: String) : BundleState

    data class Open(val running: Running) : BundleState
}

/**
 * A bundle whose program runs, and the state that it is in.
 *
 * @property pinned whether a publisher's key that the app brings has signed it
 * @property delegates backends of each method's delegates
 * @property passedOver programs that were preferred and could not run, with the reasons
 * @property live what runs, [editBytes] its file
 * @property changes prototype and edit that run, `SLOT.SUFFIX` -> values
 * @property busy whether the cloud is being asked
 * @property outcome of the last question to the cloud
 * @property records steps of swaps, newest last
 */
data class Running(
    val bundle: Bundle,
    val pinned: Boolean,
    val program: Program,
    val delegates: Map<String, List<String>>,
    val passedOver: List<PassedOver>,
    val live: LiveState,
    val editBytes: Long?,
    val changes: Pair<SlotTensors, SlotTensors>,
    val samples: SamplesView,
    val busy: Boolean,
    val outcome: Outcome?,
    val records: List<SwapRecord>,
)

/** A program that was tried first and does not run here. */
data class PassedOver(val program: Program, val why: String)
