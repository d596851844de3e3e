package dev.persona.device

import dev.persona.device.TestBundle.Companion.BASE
import dev.persona.device.TestBundle.Companion.NOW
import dev.persona.device.TestBundle.Companion.PROTOTYPES
import dev.persona.device.TestBundle.Companion.plus
import dev.persona.formats.FloatTensor
import dev.persona.formats.PersonaError
import dev.persona.formats.PublicKeys
import dev.persona.formats.formatTime
import dev.persona.formats.toBase64
import java.io.File
import java.io.IOException
import java.time.Duration
import java.time.Instant
import kotlin.test.AfterTest
import kotlin.test.BeforeTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir

/** A phone whose app pins the publisher's key, and a cloud whose keys change. */
class LearnedKeysTest {
    @TempDir lateinit var folder: File

    private lateinit var made: TestBundle
    private lateinit var bundle: Bundle
    private lateinit var cloud: TestCloud
    private lateinit var client: CloudClient
    private val newer = TestKey.create()
    private val nextPublisher = TestKey.create()
    private val stranger = TestKey.create()
    private var now = NOW

    private val place
        get() = File(folder, "device")

    @BeforeTest
    fun start() {
        made = TestBundle(File(folder, "bundle"))
        bundle = made.open()
        cloud = TestCloud(made)
        client = CloudClient(HttpTransport(cloud.address), Retries({}, { 0.0 }))
    }

    @AfterTest fun stop() = cloud.close()

    private fun device(
        files: DurableFiles = DurableFiles(),
        engine: Engine = ByHandEngine(),
    ): Device {
        val program = bundle.manifest.programs[0]
        return Device(bundle, program, engine, place, made.trusted, { now }, files)
    }

    private fun learned(pinned: PublicKeys = made.trusted) = LearnedKeys(place, pinned)

    private val bundles
        get() = File(folder, "bundles")

    private fun fetch() =
        BundleDownload(client, bundles, learned()) { now }.fetch("by-hand") { _, _ -> }

    private fun Device.ask(): Outcome {
        val values = FloatArray(12) { if (it % 3 == 0) 1f + it / 100f else it / 10f }
        return personalise(client, Window.Samples(listOf(FloatTensor(listOf(4, 3), values)))).outcome
    }

    private fun refusal(outcome: Outcome) = assertIs<Outcome.Refused>(outcome).code

    /** The cloud's next document. [edit]: keys that verify edits, and until when. */
    private fun publish(
        edit: Map<TestKey, Instant?>,
        bundles: List<TestKey> = listOf(made.publisher),
        signer: TestKey = made.publisher,
    ) {
        fun named(key: TestKey) = "\"id\": \"${key.id}\", \"public_key\": \"${toBase64(key.publicKey)}\""
        val editKeys =
            edit.entries.joinToString { (key, until) ->
                "{${named(key)}, \"until\": ${until?.let { "\"${formatTime(it)}\"" }}}"
            }
        val data =
            """
            {"format": "persona.keys/1", "sequence": ${cloud.documents.size + 1},
             "issued_at": "${formatTime(now)}", "edit_keys": [$editKeys],
             "bundle_keys": [${bundles.joinToString { "{${named(it)}}" }}]}
            """
                .trimIndent()
                .toByteArray()
        cloud.documents += SignedKeys(data, signer.sign(data))
    }

    private fun keyRequests() = cloud.requests.map { it.path }.filter { it.startsWith("/v1/keys") }

    @Test
    fun `an edit by a key that no document names is refused`() {
        cloud.signer = newer
        assertEquals("edit.unknown_key", refusal(device().ask()))
        assertTrue(keyRequests().isEmpty())
    }

    @Test
    fun `a new key is learned through a document of the publisher, and its edit runs`() {
        publish(mapOf(made.cloud to NOW + Duration.ofDays(7), newer to null))
        cloud.signer = newer
        val device = device()
        assertIs<Outcome.NewEdit>(device.ask())
        assertEquals(listOf("/v1/keys"), keyRequests())
        assertIs<OnEdit>(device.state)
        assertIs<OnEdit>(device().state, "what was learned outlives the process")
    }

    @Test
    fun `a document that is known already is not fetched again`() {
        publish(mapOf(newer to null))
        cloud.signer = newer
        val device = device()
        repeat(2) { assertIs<Outcome.NewEdit>(device.ask()) }
        assertIs<Outcome.NewEdit>(device().ask())
        assertEquals(1, keyRequests().size)
    }

    @Test
    fun `a key verifies edits before its until and none from then on`() {
        val until = NOW + Duration.ofHours(1)
        publish(mapOf(made.cloud to until, newer to null))
        val device = device()
        now = until - Duration.ofSeconds(1)
        assertIs<Outcome.NewEdit>(device.ask())
        now = until
        assertEquals("edit.unknown_key", refusal(device.ask()))
        assertEquals("edit.unknown_key", device().history.single().code?.text)
    }

    @Test
    fun `a revoked key's edit is refused, and the one that runs gives way to its prototype`() {
        val bound = ArrayList<List<Float>>()
        val engine =
            object : ByHandEngine() {
                override fun bind(slots: BoundSlots) = super.bind(slots).also { bound += weight }
            }
        val device = device(engine = engine)
        cloud.prototype = 1
        assertIs<Outcome.NewEdit>(device.ask())
        publish(mapOf(newer to null))
        bound.clear()
        assertEquals("edit.unknown_key", refusal(device.ask()))
        assertTrue(plus(BASE, PROTOTYPES[1]) in bound, "that of the edit, until it is known")
        assertEquals(OnPrototype(0), device.state, "which one the window is of")
        assertEquals(OnBase, device().state, "it does not come back by itself")
    }

    @Test
    fun `a document by an unknown key is refused, and what is trusted stays`() {
        publish(mapOf(stranger to null), signer = stranger)
        val device = device()
        assertIs<Outcome.NewEdit>(device.ask())
        assertEquals("keys.unknown_key", device.history.mapNotNull { it.code }.first().text)
        assertEquals(0, learned().sequence)
        cloud.signer = stranger
        assertEquals("edit.unknown_key", refusal(device.ask()))
        assertIs<OnEdit>(device.state)
    }

    @Test
    fun `an edit key can name no other`() {
        publish(mapOf(stranger to null), signer = made.cloud)
        cloud.signer = stranger
        assertEquals("edit.unknown_key", refusal(device().ask()))
    }

    @Test
    fun `a publisher gives way to the next through every document between`() {
        publish(mapOf(made.cloud to null), listOf(made.publisher, nextPublisher))
        publish(mapOf(made.cloud to null), listOf(nextPublisher), signer = nextPublisher)
        publish(mapOf(newer to null), listOf(nextPublisher), signer = nextPublisher)
        cloud.signer = newer
        assertIs<Outcome.NewEdit>(device().ask())
        val all = listOf("/v1/keys", "/v1/keys/1", "/v1/keys/2", "/v1/keys/3", "/v1/keys/4")
        assertEquals(all, keyRequests())
        assertEquals(3, learned().sequence)
    }

    @Test
    fun `of a chain that breaks, what came before stays learned`() {
        publish(mapOf(newer to null))
        publish(mapOf(stranger to null), signer = stranger)
        cloud.signer = newer
        assertIs<Outcome.NewEdit>(device().ask())
        assertEquals(1, learned().sequence)
    }

    @Test
    fun `bundles are trusted by the keys that were learned, and no more by those before`() {
        publish(mapOf(made.cloud to null), listOf(nextPublisher))
        device().ask()
        val error = assertFailsWith<PersonaError> { fetch() }
        assertEquals("bundle.unknown_key", error.code.text)
        made.sign(nextPublisher)
        assertEquals(nextPublisher.id, fetch().keyId)
    }

    @Test
    fun `a phone that first meets its cloud after the publisher changed learns the new one`() {
        publish(mapOf(made.cloud to null), listOf(made.publisher, nextPublisher))
        publish(mapOf(newer to null), listOf(nextPublisher), signer = nextPublisher)
        made.sign(nextPublisher)
        assertEquals(nextPublisher.id, fetch().keyId)
        assertEquals(listOf("/v1/keys", "/v1/keys/1", "/v1/keys/2", "/v1/keys/3"), keyRequests())
        assertEquals(setOf(nextPublisher.id), learned().bundleKeys.ids)
        cloud.requests.clear()
        fetch()
        assertTrue(keyRequests().isEmpty(), "what was learned outlives the process")
    }

    @Test
    fun `a bundle by a key that no document leads to is refused before its files are fetched`() {
        publish(mapOf(stranger to null), listOf(stranger), signer = stranger)
        made.sign(stranger)
        val error = assertFailsWith<PersonaError> { fetch() }
        assertEquals("bundle.unknown_key", error.code.text)
        assertEquals(0, learned().sequence)
        assertTrue(cloud.requests.none { it.path.endsWith(".safetensors") })
    }

    @Test
    fun `a phone that pins no key fetches what its cloud offers, and asks for no documents`() {
        publish(mapOf(newer to null), listOf(nextPublisher))
        made.sign(stranger, enclosed = true)
        val got = BundleDownload(client, bundles, null) { now }.fetch("by-hand") { _, _ -> }
        assertEquals(stranger.id, got.keyId)
        assertTrue(keyRequests().isEmpty())
    }

    @Test
    fun `a bundle that is here and was signed anew is taken with its new signature`() {
        val first = fetch()
        publish(mapOf(made.cloud to null), listOf(nextPublisher))
        made.sign(nextPublisher)
        cloud.requests.clear()
        val again = fetch()
        assertEquals(first.digest, again.digest)
        assertEquals(nextPublisher.id, again.keyId)
        assertTrue(cloud.requests.none { it.path.endsWith(".safetensors") }, "its files are here")
        assertEquals(listOf(again.folder), bundles.listFiles()?.toList(), "nothing is left over")
    }

    @Test
    fun `an app with other keys forgets what was learned with those before`() {
        publish(mapOf(newer to null), listOf(nextPublisher))
        cloud.signer = newer
        device().ask()
        assertEquals(setOf(nextPublisher.id), learned().bundleKeys.ids)
        val other = PublicKeys(listOf(made.publisher.publicKey, stranger.publicKey))
        assertEquals(0, learned(other).sequence)
        assertEquals(other.ids, learned(other).bundleKeys.ids)
    }

    @Test
    fun `a phone that pins no key follows the one that its bundle brings`() {
        made.sign(made.publisher, enclosed = true)
        publish(mapOf(newer to null))
        cloud.signer = newer
        val unpinned = Bundle.open(made.folder, null)
        val program = unpinned.manifest.programs[0]
        val device =
            Device(unpinned, program, ByHandEngine(), place, null, { now }, DurableFiles())
        assertIs<Outcome.NewEdit>(device.ask())
    }

    @Test
    fun `on a full disk nothing is learned`() {
        publish(mapOf(newer to null))
        cloud.signer = newer
        val full =
            object : DurableFiles() {
                override fun write(file: File, data: ByteArray) {
                    if (file.name == "keys.json") {
                        throw StorageException("cannot write $file", IOException("no space"))
                    }
                    super.write(file, data)
                }
            }
        assertEquals("edit.unknown_key", refusal(device(full).ask()))
        assertEquals(0, learned().sequence)
    }

    @Test
    fun `a file of learned keys that cannot be read counts as none`() {
        publish(mapOf(newer to null))
        cloud.signer = newer
        device().ask()
        val file = File(place, "keys.json")
        for (text in listOf("", "{}", "[]", file.readText().dropLast(9))) {
            file.writeText(text)
            assertEquals(0, learned().sequence, text)
        }
    }

    @Test
    fun `where no document can be had, the edit is judged by what is trusted`() {
        publish(mapOf(newer to null))
        val device = device()
        // Enrolling and the edit come; the document does not, three times.
        cloud.faults += listOf(null, null) + List(3) { Fault.Problem(503, "server.busy") }
        assertIs<Outcome.NewEdit>(device.ask())
        assertEquals(0, learned().sequence)
        assertEquals("edit.unknown_key", refusal(device.ask()), "the next time it is asked for again")
        assertEquals(1, learned().sequence)
    }
}
