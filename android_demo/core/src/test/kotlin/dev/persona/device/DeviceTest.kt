package dev.persona.device

import dev.persona.device.TestBundle.Companion.BASE
import dev.persona.device.TestBundle.Companion.EXAMPLE
import dev.persona.device.TestBundle.Companion.NOTHING
import dev.persona.device.TestBundle.Companion.NOW
import dev.persona.device.TestBundle.Companion.PROTOTYPES
import dev.persona.device.TestBundle.Companion.input
import dev.persona.device.TestBundle.Companion.output
import dev.persona.device.TestBundle.Companion.plus
import dev.persona.formats.Code
import dev.persona.formats.FloatTensor
import dev.persona.formats.ItemsObservation
import dev.persona.formats.PersonaError
import dev.persona.formats.PooledObservation
import dev.persona.formats.PortValue
import java.io.File
import java.io.IOException
import java.time.Duration
import java.time.Instant
import java.util.concurrent.ConcurrentHashMap
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNotEquals
import kotlin.test.assertNull
import kotlin.test.assertSame
import kotlin.test.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.io.TempDir

class DeviceTest {
    @TempDir lateinit var folder: File

    private lateinit var made: TestBundle
    private lateinit var bundle: Bundle
    private var now: Instant = NOW

    private val place
        get() = File(folder, "device")

    private val sample = listOf(0.5f, -1f, 2f)

    @BeforeEach
    fun bundle() {
        made = TestBundle(File(folder, "bundle"))
        bundle = made.open()
        DeviceStore(place, bundle.digest, DurableFiles()).enrolled(TestBundle.DEVICE, "secret")
    }

    private fun device(engine: Engine = ByHandEngine(), files: DurableFiles = DurableFiles()) =
        Device(bundle, bundle.manifest.programs[0], engine, place, null, { now }, files)

    private fun Device.accept(edit: SignedEdit): Swap.Ended = accept(edit.data, edit.signature)

    private fun Device.answers(): List<Float> = predict(input(sample)).values.toList()

    @Test
    fun `a good edit runs, and runs after a restart`() {
        val device = device()
        val ended = device.accept(made.edit(bundle, 1, EXAMPLE))
        assertIs<Swap.Active>(ended)
        val expected = output(plus(BASE, EXAMPLE), sample)
        assertEquals(expected, device.answers())
        assertEquals(expected, device().answers())
        assertEquals(made.edit(bundle, 1, EXAMPLE).data.size.toLong(), device.editBytes)
    }

    @Test
    fun `an edit is added to its prototype`() {
        val device = device()
        device.accept(made.edit(bundle, 1, EXAMPLE, prototype = 1))
        assertEquals(output(plus(BASE, plus(PROTOTYPES[1], EXAMPLE)), sample), device.answers())
    }

    @Test
    fun `rolling back gives the base bit for bit, now and after a restart`() {
        val device = device()
        device.accept(made.edit(bundle, 1, EXAMPLE, prototype = 0))
        device.rollBack()
        assertEquals(output(BASE, sample), device.answers())
        assertEquals(OnBase, device().state)
        assertEquals(output(BASE, sample), device().answers())
    }

    @Test
    fun `what was rolled back does not come back by itself`() {
        val device = device()
        val edit = made.edit(bundle, 1, EXAMPLE)
        device.accept(edit)
        device.rollBack()
        assertEquals(Code.REPLAYED, device.accept(edit).code)
    }

    @Test
    fun `an edit that breaks a rule changes nothing`() {
        val device = device()
        device.accept(made.edit(bundle, 1, EXAMPLE))
        val before = device.answers()
        val refused = device.accept(made.edit(bundle, 2, List(6) { 2.5f }))
        assertIs<Swap.Refused>(refused)
        assertEquals(Code.BEYOND_BOUND, refused.code)
        assertEquals(before, device.answers())
    }

    @Test
    fun `an edit whose probe fails is taken back, and not tried again`() {
        val device = device()
        device.accept(made.edit(bundle, 1, EXAMPLE))
        val before = device.answers()
        val wrong = made.edit(bundle, 2, PROTOTYPES[0], probe = listOf(0f, 0f))
        val ended = device.accept(wrong)
        assertIs<Swap.TakenBack>(ended)
        assertEquals(Code.PROBE_MISMATCH, ended.code)
        assertEquals(before, device.answers())
        assertEquals(before, device().answers())
        assertEquals(Code.REPLAYED, device().accept(wrong).code)
    }

    @Test
    fun `an edit that reaches no slot is taken back`() {
        val deaf =
            object : ByHandEngine() {
                var heard = true

                override fun bind(slots: BoundSlots) {
                    if (heard) super.bind(slots)
                }
            }
        val device = device(deaf)
        deaf.heard = false
        // The cloud's edit is so small that its probe is within tolerance of the base's output.
        val edit = made.edit(bundle, 1, List(6) { 1e-7f })
        assertEquals(Code.PROBE_NO_EFFECT, device.accept(edit).code)
    }

    @Test
    fun `an edit that changes nothing may leave the output as it was`() {
        assertIs<Swap.Active>(device().accept(made.edit(bundle, 1, NOTHING)))
    }

    @Test
    fun `where the runtime fails during a swap, what ran before runs on`() {
        val fragile =
            object : ByHandEngine() {
                var failing = false

                override fun predict(inputs: List<PortValue>): FloatTensor {
                    if (failing) {
                        failing = false
                        throw EngineException("out of memory")
                    }
                    return super.predict(inputs)
                }
            }
        val device = device(fragile)
        device.accept(made.edit(bundle, 1, EXAMPLE))
        val before = device.answers()
        fragile.failing = true
        assertIs<Swap.TakenBack>(device.accept(made.edit(bundle, 2, PROTOTYPES[0])))
        assertEquals(before, device.answers())
    }

    @Test
    fun `on a full disk what ran before runs on`() {
        val files =
            object : DurableFiles() {
                var full = false

                override fun writeTemporary(file: File, data: ByteArray): File {
                    if (full && file.name.endsWith(".safetensors")) throw IOException("no space left")
                    return super.writeTemporary(file, data)
                }
            }
        val device = device(files = files)
        device.accept(made.edit(bundle, 1, EXAMPLE))
        val before = device.answers()
        files.full = true
        val ended = device.accept(made.edit(bundle, 2, PROTOTYPES[0]))
        assertIs<StorageException>(assertIs<Swap.TakenBack>(ended).error)
        assertEquals(before, device.answers())
        assertEquals(before, device().answers())
    }

    @Test
    fun `an expired edit gives way to its prototype, and rests`() {
        val device = device()
        val edit = made.edit(bundle, 1, EXAMPLE, prototype = 1, lifetime = Duration.ofHours(1))
        device.accept(edit)
        now = NOW + Duration.ofHours(1)
        assertEquals(output(plus(BASE, PROTOTYPES[1]), sample), device.answers())
        assertEquals(OnPrototype(1), device().state)
        now = NOW
        assertIs<OnEdit>(device().state)
    }

    @Test
    fun `offline a device runs the prototype that it chooses itself`() {
        val device = device()
        device.fallBack(device.observe(samples(listOf(2f, 0f, 0f))))
        assertEquals(OnPrototype(0), device.state)
        assertEquals(output(plus(BASE, PROTOTYPES[0]), sample), device.answers())
        device.fallBack(device.observe(samples(listOf(-2f, 0f, 0f))))
        assertEquals(OnPrototype(1), device.state)
    }

    @Test
    fun `offline the last edit stays while it is good`() {
        val device = device()
        device.accept(made.edit(bundle, 1, EXAMPLE))
        device.fallBack(device.observe(samples(listOf(2f, 0f, 0f))))
        assertIs<OnEdit>(device.state)
    }

    @Test
    fun `an edit on the disk that was tampered with is not used, and forgotten`() {
        device().accept(made.edit(bundle, 1, EXAMPLE))
        val file = File(place, "edit-1.safetensors")
        file.writeBytes(file.readBytes().also { it[it.size - 1] = (it[it.size - 1] + 1).toByte() })
        val device = device()
        assertEquals(OnBase, device.state)
        assertEquals(Code.BAD_SIGNATURE, device.history.last().code)
        assertTrue(!file.exists())
    }

    @Test
    fun `with another bundle the old edit no longer applies, but old sequences stay used up`() {
        device().accept(made.edit(bundle, 5, EXAMPLE))
        made = TestBundle(File(folder, "other"))
        bundle = made.open()
        val device = device()
        assertEquals(OnBase, device.state)
        assertEquals(TestBundle.DEVICE, device.id)
        assertEquals(Code.REPLAYED, device.accept(made.edit(bundle, 5, EXAMPLE)).code)
        assertIs<Swap.Active>(device.accept(made.edit(bundle, 6, EXAMPLE)))
    }

    @Test
    fun `a swap goes through its states in order, and the log says so`() {
        val device = device()
        device.accept(made.edit(bundle, 1, EXAMPLE))
        val about = device.history.map { it.about }
        assertEquals(6, about.size)
        assertTrue("received" in about.first())
        assertTrue("active" in about.last())
        assertNull(device.history.last().code)
    }

    @Test
    fun `a program that does not compute here what it must is not used`() {
        val wrong =
            object : ByHandEngine() {
                override fun predict(inputs: List<PortValue>): FloatTensor {
                    val right = super.predict(inputs)
                    return FloatTensor(right.shape, right.values.also { it[0] += 1e-3f })
                }
            }
        val error = assertFailsWith<PersonaError> { device(wrong) }
        assertEquals(Code.BUNDLE_GOLDEN, error.code)
    }

    @Test
    fun `an observe program that does not compute here what it must is not used`() {
        val wrong =
            object : ByHandEngine() {
                override fun observe(inputs: List<PortValue>) =
                    Features(FloatTensor(listOf(1, 3), FloatArray(3)), super.observe(inputs).posterior)
            }
        assertEquals(Code.BUNDLE_GOLDEN, assertFailsWith<PersonaError> { device(wrong) }.code)
    }

    @Test
    fun `a slot that is patched into a head takes the same edits`() {
        made = TestBundle(File(folder, "in-two"), inTwo = true)
        bundle = made.open()
        val scratch = File(folder, "heads").also { it.mkdirs() }
        val device = device(ByHandEngine(scratch))
        assertIs<Swap.Active>(device.accept(made.edit(bundle, 1, EXAMPLE, prototype = 0)))
        assertEquals(output(plus(BASE, plus(PROTOTYPES[0], EXAMPLE)), sample), device.answers())
        device.rollBack()
        val shipped = File(bundle.folder, "programs/head.bin").readBytes()
        assertContentEquals(shipped, File(scratch, "head.pte").readBytes())
    }

    @Test
    fun `a window is pooled from its newest samples`() {
        val rows = List(60) { listOf(it.toFloat(), 1f, -1f) }
        val pooled = device().observe(window(rows)) as PooledObservation
        assertEquals(50, pooled.count)
        assertEquals((10 until 60).average().toFloat(), pooled.mean.values[0])
    }

    @Test
    fun `items are observed as they are, the newest of them`() {
        made = TestBundle(File(folder, "items"), items = true)
        bundle = made.open()
        val observed = device().observe(Window.Items(longArrayOf(1, 2, 3, 4, 5, 6, 7, 8)))
        assertContentEquals(longArrayOf(3, 4, 5, 6, 7, 8), (observed as ItemsObservation).items)
        val error = assertFailsWith<PersonaError> { device().observe(samples(sample)) }
        assertEquals(Code.OBSERVATION_INVALID, error.code)
    }

    @Test
    fun `predictions of many threads see one state each, never a mixture`() {
        val device = device()
        val possible = setOf(output(BASE, sample), output(plus(BASE, EXAMPLE), sample))
        val seen = ConcurrentHashMap.newKeySet<List<Float>>()
        val readers = List(3) { Thread { repeat(2000) { seen += device.answers() } } }
        readers.forEach(Thread::start)
        for (sequence in 1L..40L) {
            device.accept(made.edit(bundle, sequence, EXAMPLE))
            device.rollBack()
        }
        readers.forEach(Thread::join)
        assertEquals(possible, possible + seen)
    }

    @Test
    fun `the base program is the same with and without an edit`() {
        val device = device()
        val before = device.predictBase(input(sample))
        device.accept(made.edit(bundle, 1, EXAMPLE))
        assertEquals(before, device.predictBase(input(sample)))
        assertNotEquals(before, device.predict(input(sample)))
        assertSame((device.state as OnEdit).edit.tensors, device.changes.second)
    }

    private fun samples(x: List<Float>) = window(List(4) { x })

    private fun window(rows: List<List<Float>>) =
        Window.Samples(
            listOf(FloatTensor(listOf(rows.size.toLong(), 3), rows.flatten().toFloatArray()))
        )
}
