package dev.persona.checks

import dev.persona.demo.runtime.ExecuTorchEngine
import dev.persona.demo.session.Phone
import dev.persona.demo.session.RunningProgram
import dev.persona.formats.Program
import dev.persona.measure.ThermalStatus
import java.io.File

/**
 * This machine in a phone's place: the real runtime, real memory, and a temperature that a check sets.
 *
 * @property publisher the key that the app pins, or null
 */
class DesktopPhone(
    override val files: File,
    private val publisher: ByteArray?,
    private val shipped: File? = null,
) : Phone {
    /** What [thermal] says from now on. */
    var temperature = ThermalStatus.NONE

    override val debug = true
    override val targets = listOf("executorch-vulkan", "executorch-xnnpack")
    override val machine = "desktop"
    override val abi: String = System.getProperty("os.arch")
    override val system: String = System.getProperty("os.name")
    override val cores = Runtime.getRuntime().availableProcessors()
    override val threads = ExecuTorchEngine.THREADS

    override fun pssKb(): Long =
        File("/proc/self/smaps_rollup").readLines().first { it.startsWith("Pss:") }
            .filter { it.isDigit() }.toLong()

    override fun thermal() = temperature

    override fun publishers() = listOfNotNull(publisher)

    override fun unpackShippedBundle(to: File): Boolean = shipped?.copyRecursively(to, overwrite = true) ?: false

    override fun engine(bundle: File, program: Program): RunningProgram {
        val engine = ExecuTorchEngine(bundle, program, files)
        return RunningProgram(engine, engine.delegates(), engine.hasBase)
    }
}
