package dev.persona.device

import dev.persona.device.TestBundle.Companion.BASE
import dev.persona.device.TestBundle.Companion.EXAMPLE
import dev.persona.device.TestBundle.Companion.NOW
import dev.persona.device.TestBundle.Companion.PROTOTYPES
import dev.persona.device.TestBundle.Companion.input
import dev.persona.device.TestBundle.Companion.output
import dev.persona.device.TestBundle.Companion.plus
import dev.persona.formats.Code
import dev.persona.formats.DetachedSignature
import dev.persona.formats.FloatTensor
import dev.persona.formats.PortValue
import dev.persona.formats.PublicKeys
import dev.persona.formats.StoredSignature
import java.io.File
import java.io.FileOutputStream
import java.util.concurrent.TimeUnit
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertIs
import kotlin.test.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.io.TempDir

private const val HALTED = 3
private val OLD = output(plus(BASE, EXAMPLE), listOf(1f, 1f, 1f))
private val NEW = output(plus(BASE, PROTOTYPES[0]), listOf(1f, 1f, 1f))

/** Kills a real process, a JVM of its own, at each step of a swap, and looks what the next finds. */
class KillTest {
    @TempDir lateinit var folder: File

    private lateinit var made: TestBundle
    private lateinit var bundle: Bundle

    private val place
        get() = File(folder, "device")

    @BeforeEach
    fun `a device that runs its old edit`() {
        made = TestBundle(File(folder, "bundle"))
        bundle = made.open()
        DeviceStore(place, bundle.digest, DurableFiles()).enrolled(TestBundle.DEVICE, "secret")
        assertIs<Swap.Active>(device().accept(made.edit(bundle, 1, EXAMPLE)))
        assertEquals(OLD, device().answers())
        store("new", made.edit(bundle, 2, PROTOTYPES[0]))
        File(folder, "publisher").writeBytes(made.publisher.publicKey)
    }

    private fun Device.accept(edit: SignedEdit): Swap.Ended = accept(edit.data, edit.signature)

    private fun Device.answers() = predict(input(listOf(1f, 1f, 1f))).values.toList()

    private fun device() =
        Device(bundle, bundle.manifest.programs[0], ByHandEngine(), place, null, { NOW }, DurableFiles())

    private fun store(name: String, edit: SignedEdit) {
        File(folder, "$name.edit").writeBytes(edit.data)
        File(folder, "$name.sig").writeBytes(edit.signature.encode())
    }

    private fun child(vararg arguments: String): Process =
        ProcessBuilder(
                File(System.getProperty("java.home"), "bin/java").path,
                "-XX:TieredStopAtLevel=1",
                "-Xshare:auto",
                "-cp",
                System.getProperty("java.class.path"),
                "dev.persona.device.SwapUntilKilled",
                folder.path,
                *arguments,
            )
            .redirectErrorStream(true)
            .redirectOutput(File(folder, "child.log"))
            .start()

    @Test
    fun `killed at any step of a swap, the next start finds the old or the new edit, whole`() {
        val found = ArrayList<List<Float>>()
        var moment = 1
        while (true) {
            val fresh = File(folder, "before")
            if (moment == 1) place.copyRecursively(fresh)
            place.deleteRecursively()
            fresh.copyRecursively(place)
            val child = child("$moment")
            assertTrue(child.waitFor(60, TimeUnit.SECONDS))
            if (child.exitValue() == 0) break
            assertEquals(HALTED, child.exitValue(), File(folder, "child.log").readText())
            found += checkWhole()
            moment++
        }
        assertEquals(NEW, device().answers())
        assertTrue(found.size >= 15, "only ${found.size} moments")
        // Once the state file names it, the edit is new; before that it is old; never back and forth.
        assertEquals(OLD, found.first())
        assertEquals(NEW, found.last())
        assertEquals(1, found.zipWithNext().count { (a, b) -> a != b })
    }

    @Test
    fun `killed from outside at a random moment, the next start finds a whole edit`() {
        repeat(4) { round ->
            val edits = (1L..200L).map { 1000L * (round + 1) + it }
            for (n in edits) {
                store("edit-$n", made.edit(bundle, n, if (n % 2 == 0L) EXAMPLE else PROTOTYPES[0]))
            }
            val child = child("all", "${edits.first()}", "${edits.last()}")
            waitForWork(child)
            Thread.sleep(37L * round)
            child.destroyForcibly().waitFor()
            checkWhole()
        }
    }

    private fun waitForWork(child: Process) {
        val log = File(folder, "child.log")
        while (child.isAlive && "swapping" !in log.readText()) Thread.sleep(5)
        assertTrue(child.isAlive, log.readText())
    }

    /** What the next start runs: one of the two, with nothing left over, and open to newer edits. */
    private fun checkWhole(): List<Float> {
        val device = device()
        assertIs<OnEdit>(device.state)
        val answers = device.answers()
        assertContains(listOf(OLD, NEW), answers)
        val names = place.list().orEmpty().filter { it.startsWith("edit-") || it.startsWith(".") }
        assertEquals(2, names.size, "left over: $names")
        val newer = made.edit(bundle, 1_000_000, EXAMPLE, probe = listOf(0f, 0f))
        val copy = File(folder, "copy").also { it.deleteRecursively() }
        place.copyRecursively(copy)
        assertEquals(Code.PROBE_MISMATCH, device.accept(newer).code)
        assertEquals(answers, device.answers())
        place.deleteRecursively()
        copy.copyRecursively(place)
        return answers
    }
}

/** The process that is killed. */
object SwapUntilKilled {
    private var left = Int.MAX_VALUE

    /** Ends this process here, without any tidying up, when it is the moment asked for. */
    private fun moment() {
        left--
        if (left == 0) Runtime.getRuntime().halt(HALTED)
    }

    @JvmStatic
    fun main(arguments: Array<String>) {
        val folder = File(arguments[0])
        val publisher = PublicKeys(listOf(File(folder, "publisher").readBytes()))
        val bundle = Bundle.open(File(folder, "bundle"), publisher)
        val program = bundle.manifest.programs[0]
        val device =
            Device(bundle, program, HaltingEngine(), File(folder, "device"), null, { NOW }, HaltingFiles())
        if (arguments[1] == "all") {
            println("swapping")
            for (n in arguments[2].toLong()..arguments[3].toLong()) device.take(folder, "edit-$n")
        } else {
            left = arguments[1].toInt()
            device.take(folder, "new")
        }
    }

    private fun Device.take(folder: File, name: String) {
        val signature: DetachedSignature =
            checkNotNull(StoredSignature.decode(File(folder, "$name.sig").readBytes())).signature
        check(accept(File(folder, "$name.edit").readBytes(), signature) is Swap.Active)
    }

    private class HaltingEngine : ByHandEngine() {
        override fun bind(slots: BoundSlots) {
            moment()
            super.bind(slots)
        }

        override fun predict(inputs: List<PortValue>): FloatTensor {
            moment()
            return super.predict(inputs)
        }
    }

    private class HaltingFiles : DurableFiles() {
        override fun write(file: File, data: ByteArray) {
            moment()
            super.write(file, data)
            moment()
        }

        override fun writeTemporary(file: File, data: ByteArray): File {
            if (left == 1) {
                // Half of the bytes are written when the process dies.
                FileOutputStream(File(file.parentFile, ".${file.name}.123")).use {
                    it.write(data, 0, data.size / 2)
                }
            }
            moment()
            return super.writeTemporary(file, data)
        }

        override fun rename(temporary: File, file: File) {
            moment()
            super.rename(temporary, file)
        }

        override fun remove(file: File) {
            moment()
            super.remove(file)
        }
    }
}
