package dev.persona.demo.session

import dev.persona.device.Engine
import dev.persona.formats.Program
import dev.persona.measure.ThermalStatus
import java.io.File

/** What a session needs of the phone that it runs on. */
interface Phone {
    /** The app's private folder. */
    val files: File

    /** Whether this is a debug build, which alone may use http. */
    val debug: Boolean

    /** Targets that this build's runtime has backends for, best first. */
    val targets: List<String>

    /** The phone as its maker calls it; nothing that says whose it is. */
    val machine: String

    /** The processor's instruction set, such as `arm64-v8a`. */
    val abi: String

    /** The system and its version. */
    val system: String

    val cores: Int

    /** Threads that programs run on. */
    val threads: Int

    /** Proportional set size of this process in kB. */
    fun pssKb(): Long

    fun thermal(): ThermalStatus

    /** Raw public keys of publishers that the app pins; empty if it pins none. */
    fun publishers(): List<ByteArray>

    /** The bundle in the app's assets, copied to [to]; false if it ships none. */
    fun unpackShippedBundle(to: File): Boolean

    /** An engine for a program, and what it says of itself. */
    fun engine(bundle: File, program: Program): RunningProgram
}

/**
 * A loaded program.
 *
 * @property delegates backends of each method's delegates
 * @property hasBase whether it can be timed against constant weights
 */
class RunningProgram(
    val engine: Engine,
    val delegates: Map<String, List<String>>,
    val hasBase: Boolean,
)
