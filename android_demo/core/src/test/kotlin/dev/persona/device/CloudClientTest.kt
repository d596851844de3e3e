package dev.persona.device

import dev.persona.device.TestBundle.Companion.NOW
import dev.persona.formats.Envelope
import dev.persona.formats.FloatTensor
import dev.persona.formats.Host
import dev.persona.formats.JsonObject
import dev.persona.formats.Latency
import dev.persona.formats.Measurement
import dev.persona.formats.PersonaError
import dev.persona.formats.Precision
import dev.persona.formats.PublicKeys
import dev.persona.formats.parseJson
import dev.persona.formats.write
import java.io.File
import java.net.ServerSocket
import java.time.Duration
import kotlin.test.AfterTest
import kotlin.test.BeforeTest
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNotEquals
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir

class CloudClientTest {
    @TempDir lateinit var folder: File

    private lateinit var made: TestBundle
    private lateinit var bundle: Bundle
    private lateinit var cloud: TestCloud
    private lateinit var client: CloudClient
    private val pauses = ArrayList<Long>()
    private var now = NOW

    @BeforeTest
    fun start() {
        made = TestBundle(File(folder, "bundle"))
        bundle = made.open()
        cloud = TestCloud(made)
        client = client(cloud.address)
    }

    @AfterTest fun stop() = cloud.close()

    private fun client(address: String, random: () -> Double = { 0.0 }) =
        CloudClient(HttpTransport(address), Retries({ pauses += it }, random))

    private fun device() =
        Device(
            bundle,
            bundle.manifest.programs[0],
            ByHandEngine(),
            File(folder, "device"),
            made.trusted,
            { now },
            DurableFiles(),
        )

    private fun download(pinned: PublicKeys = made.trusted) =
        BundleDownload(client, File(folder, "bundles"), LearnedKeys(File(folder, "device"), pinned)) { now }

    private fun window(x: Float = 1f): Window {
        val values = FloatArray(12) { if (it % 3 == 0) x + it / 100f else it / 10f }
        return Window.Samples(listOf(FloatTensor(listOf(4, 3), values)))
    }

    private fun paths() = cloud.requests.map { it.path }

    private fun editRequests() = cloud.requests.filter { it.path.endsWith("/edits") }

    @Test
    fun `a device enrols, asks, and runs its edit`() {
        val device = device()
        val came = device.personalise(client, window())
        assertIs<Outcome.NewEdit>(came.outcome)
        assertIs<OnEdit>(came.state)
        assertEquals(listOf("/v1/devices", "/v1/models/by-hand/edits"), paths())
        assertEquals(cloud.device, device.id)
        assertTrue(pauses.isEmpty())
    }

    @Test
    fun `the second time it does not enrol again`() {
        device().personalise(client, window())
        assertIs<Outcome.NewEdit>(device().personalise(client, window()).outcome)
        assertEquals(1, paths().count { it == "/v1/devices" })
        assertNotEquals(
            editRequests()[0].headers["Idempotency-key"],
            editRequests()[1].headers["Idempotency-key"],
        )
    }

    @Test
    fun `what fails on the way is sent again with the same idempotency key`() {
        val device = device()
        device.personalise(client, window())
        cloud.requests.clear()
        cloud.faults += listOf(Fault.Problem(503, "server.busy"), Fault.Dropped)
        assertIs<Outcome.NewEdit>(device.personalise(client, window()).outcome)
        assertTrue(editRequests().size >= 3)
        assertEquals(1, editRequests().map { it.headers["Idempotency-key"] }.toSet().size)
        assertEquals(1, editRequests().map { it.body.toList() }.toSet().size)
    }

    @Test
    fun `an edit that is cut off on the way is asked for again, and is the same`() {
        val device = device()
        device.personalise(client, window())
        cloud.faults += Fault.CutOff
        assertIs<Outcome.NewEdit>(device.personalise(client, window()).outcome)
        val info = (device.state as OnEdit).edit.info
        assertEquals(2, info.sequence)
    }

    @Test
    fun `pauses double, and a random half is added`() {
        cloud.faults += List(3) { Fault.Problem(502, "server.failed") }
        assertFailsWith<OfflineException> { client.models() }
        assertEquals(listOf(200L, 400L), pauses)
        pauses.clear()
        cloud.faults += List(3) { Fault.Problem(502, "server.failed") }
        assertFailsWith<OfflineException> { client(cloud.address) { 1.0 }.models() }
        assertEquals(listOf(300L, 600L), pauses)
    }

    @Test
    fun `Retry-After is obeyed up to five seconds, and only as whole seconds`() {
        for ((said, pause) in listOf("2" to 2000L, "3600" to 5000L, "soon" to 200L, "-1" to 200L)) {
            pauses.clear()
            cloud.faults += Fault.Problem(429, "request.too_many", retryAfter = said)
            client.models()
            assertEquals(listOf(pause), pauses, said)
        }
        pauses.clear()
        cloud.faults += Fault.Problem(429, "request.too_many", retryAfter = "2")
        client(cloud.address) { 0.5 }.models()
        assertEquals(listOf(2500L), pauses, "never sooner than the cloud said")
    }

    @Test
    fun `a refusal is not repeated, and its code and advice are told`() {
        cloud.faults += Fault.Problem(422, "request.invalid")
        val error = assertFailsWith<CloudError> { client.models() }
        assertEquals("request.invalid", error.code)
        assertEquals("what to do", error.message)
        assertEquals(1, cloud.requests.size)
    }

    @Test
    fun `a page of a network that wants a sign-in is not taken for a cloud`() {
        cloud.faults += Fault.SignIn
        val error = assertFailsWith<CloudError> { client.enrol() }
        assertEquals("http.error", error.code)
        cloud.faults += listOf(Fault.SignIn)
        val came = device().personalise(client, window())
        assertEquals("http.error", assertIs<Outcome.Refused>(came.outcome).code)
    }

    @Test
    fun `an expired token is renewed, and the device stays who it is`() {
        val device = device()
        device.personalise(client, window())
        val before = device.id
        cloud.requests.clear()
        cloud.faults += Fault.Problem(401, "token.expired")
        assertIs<Outcome.NewEdit>(device.personalise(client, window()).outcome)
        assertEquals(before, device.id)
        val quoted = "/v1/devices/device%201%2F%C3%A4/token"
        assertEquals(listOf(EDITS, quoted, EDITS), paths())
    }

    @Test
    fun `where renewing is refused, the device enrols anew`() {
        val device = device()
        device.personalise(client, window())
        cloud.requests.clear()
        cloud.faults += Fault.Problem(401, "token.unknown")
        cloud.faults += Fault.Problem(401, "token.unknown")
        val came = device.personalise(client, window())
        assertEquals("/v1/devices", paths()[2])
        assertIs<Outcome.NewEdit>(came.outcome)
        assertEquals(cloud.device, device.id)
    }

    @Test
    fun `a device that was shut out does not come back by itself`() {
        val device = device()
        device.personalise(client, window())
        cloud.requests.clear()
        cloud.faults += Fault.Problem(401, "token.revoked")
        val came = device.personalise(client, window())
        assertEquals("token.revoked", assertIs<Outcome.Refused>(came.outcome).code)
        assertEquals(1, cloud.requests.size)
        assertIs<OnEdit>(came.state)
    }

    @Test
    fun `where nobody answers, the device runs a prototype and says that it is offline`() {
        val free = ServerSocket(0).use { it.localPort }
        val came = device().personalise(client("http://127.0.0.1:$free"), window())
        assertIs<Outcome.Offline>(came.outcome)
        assertEquals(OnPrototype(0), came.state)
        assertEquals(2, pauses.size)
    }

    @Test
    fun `an edit that is refused leaves the last one running`() {
        val device = device()
        device.personalise(client, window())
        cloud.values = List(6) { 9f }
        val came = device.personalise(client, window())
        assertEquals("value.beyond_bound", assertIs<Outcome.Refused>(came.outcome).code)
        assertIs<OnEdit>(came.state)
    }

    @Test
    fun `a window that is too short is told, and nothing is sent`() {
        val short = Window.Samples(listOf(FloatTensor(listOf(1, 3), FloatArray(3))))
        val came = device().personalise(client, short)
        assertEquals("observation.empty", assertIs<Outcome.Refused>(came.outcome).code)
        assertTrue(cloud.requests.isEmpty())
    }

    @Test
    fun `of an endless answer no more is read than shows that it is too long`() {
        val device = device()
        device.personalise(client, window())
        val envelope = Envelope(bundle.digest, device.observe(window()))
        val answer = client.requestEdit(cloud.token, "by-hand", envelope, 100)
        assertEquals(101, answer.data.size)
    }

    @Test
    fun `the cloud is asked again only when the window has drifted or time runs out`() {
        val device = device()
        fun outcome(x: Float) = device.personaliseIfDrifted(client, window(x)).outcome
        assertIs<Outcome.NewEdit>(outcome(1f))
        assertIs<Outcome.NotNeeded>(outcome(1f))
        assertIs<Outcome.NewEdit>(outcome(-9f))
        assertIs<Outcome.NotNeeded>(outcome(-9f))
        now = NOW + Duration.ofDays(6) + Duration.ofHours(12)
        cloud.requests.clear()
        outcome(-9f)
        assertEquals(1, editRequests().size)
    }

    @Test
    fun `a device that was offline asks again as soon as it can`() {
        val device = device()
        cloud.faults += List(3) { Fault.Problem(503, "server.busy") }
        assertIs<Outcome.Offline>(device.personaliseIfDrifted(client, window()).outcome)
        assertIs<Outcome.NewEdit>(device.personaliseIfDrifted(client, window()).outcome)
    }

    @Test
    fun `what it told as a device that the cloud knows no more does not count`() {
        val device = device()
        fun gate() = device.gate(device.observe(window()))
        device.personalise(client, window())
        assertIs<GateDecision.Stay>(gate())
        // Token, renewal and enrolling anew are refused in turn.
        cloud.faults += List(2) { Fault.Problem(401, "token.unknown") }
        cloud.faults += Fault.Problem(403, "enrolment.closed")
        assertIs<Outcome.Refused>(device.personalise(client, window()).outcome)
        assertEquals(GateDecision.Ask(AskReason.NEVER_ASKED, null), gate())
    }

    @Test
    fun `where the token is only renewed, what it told still counts`() {
        val device = device()
        device.personalise(client, window())
        cloud.faults += listOf(Fault.Problem(401, "token.expired"), null)
        cloud.faults += List(3) { Fault.Problem(503, "server.busy") }
        assertIs<Outcome.Offline>(device.personalise(client, window(-9f)).outcome)
        assertIs<GateDecision.Stay>(device.gate(device.observe(window())))
    }

    @Test
    fun `a page of a network that wants a sign-in is no edit, and the cloud was told nothing`() {
        val device = device()
        device.personalise(client, window())
        cloud.faults += Fault.SignIn
        val came = device.personalise(client, window(-9f))
        assertEquals("http.error", assertIs<Outcome.Refused>(came.outcome).code)
        val decision = assertIs<GateDecision.Ask>(device.gate(device.observe(window(-9f))))
        assertEquals(AskReason.DRIFTED, decision.reason)
    }

    @Test
    fun `a measurement goes to the cloud as it is`() {
        val latency = Latency(50, 10, 1.5, 2.0, 3.25, 1.75)
        val host = Host("Android 14", "arm64-v8a", 8, 1, "none")
        val measured =
            Measurement(
                "by-hand",
                bundle.digest,
                "by-hand",
                Precision.FP32,
                listOf("XnnpackBackend"),
                host,
                latency,
                latency,
                1.0,
                12.5,
                null,
            )
        device().report(client, measured)
        val sent = cloud.requests.last()
        assertEquals(measured.toJson(), parseJson(sent.body))
        assertEquals("application/json", sent.headers["Content-type"])
        assertTrue("\"edit_to_active_ms\": null" in (parseJson(sent.body) as JsonObject).write())
    }

    @Test
    fun `models are listed`() {
        assertEquals(listOf(CloudModel("by-hand", "classification", bundle.digest)), client.models())
    }

    @Test
    fun `what is no address is refused, and what to write is told`() {
        val wrong =
            listOf("", "phone", "ftp://a", "http://", "http://a:99999", "http://a/?q=1", "http://u@a", "http://a b")
        for (text in wrong) {
            val error = assertFailsWith<IllegalArgumentException>(text) { CloudClient(text) }
            assertTrue("http://192.168.1.2:8080" in "${error.message}")
        }
        assertEquals("https://a.example/persona", CloudClient("https://a.example/persona/").address)
    }

    @Test
    fun `a bundle is fetched, verified and opened`() {
        val heard = ArrayList<Pair<Long, Long>>()
        val got =
            download().fetch("by-hand") { here, all ->
                heard += here to all
            }
        assertEquals(bundle.digest, got.digest)
        assertEquals(heard.last().first, heard.last().second)
        assertEquals(heard.map { it.first }.sorted(), heard.map { it.first })
        cloud.requests.clear()
        download().fetch("by-hand") { _, _ -> }
        assertTrue(paths().all { "manifest." in it }, "files that are here are not fetched again")
    }

    @Test
    fun `a download that is cut off goes on where it ended`() {
        // Manifest and signature come whole; the first file's answer ends in its middle.
        cloud.faults += listOf(null, null, Fault.CutOff)
        val got = download().fetch("by-hand") { _, _ -> }
        val ranges = cloud.requests.mapNotNull { it.headers["Range"] }
        val file = File(made.folder, "base.safetensors")
        assertEquals(listOf("bytes=${file.length() / 2}-"), ranges)
        assertContentEquals(file.readBytes(), File(got.folder, file.name).readBytes())
    }

    @Test
    fun `a bundle of another publisher is refused before its files are fetched`() {
        val stranger = TestBundle(File(folder, "stranger"))
        val error =
            assertFailsWith<PersonaError> {
                download(stranger.trusted).fetch("by-hand") { _, _ -> }
            }
        assertEquals("bundle.unknown_key", error.code.text)
        assertEquals(listOf("manifest.json", "manifest.sig", "keys"), paths().map { it.substringAfterLast('/') })
    }

    @Test
    fun `a bundle by another key than the one that was named is refused, though it is trusted`() {
        val download = download()
        val error =
            assertFailsWith<PersonaError> { download.fetch("by-hand", "0123456789abcdef") { _, _ -> } }
        assertEquals("bundle.unknown_key", error.code.text)
        assertEquals(2, cloud.requests.size)
        assertEquals(bundle.digest, download.fetch("by-hand", made.publisher.id) { _, _ -> }.digest)
    }

    @Test
    fun `a file that is not what the manifest says is refused`() {
        val file = File(made.folder, "programs/trunk.bin")
        file.writeBytes(file.readBytes().reversedArray())
        val error = assertFailsWith<PersonaError> { download().fetch("by-hand") { _, _ -> } }
        assertEquals("bundle.file_changed", error.code.text)
    }

    private companion object {
        const val EDITS = "/v1/models/by-hand/edits"
    }
}
