package dev.persona.device

import dev.persona.formats.DetachedSignature
import dev.persona.formats.EDIT_MEDIA_TYPE
import dev.persona.formats.Envelope
import dev.persona.formats.JsonArray
import dev.persona.formats.JsonException
import dev.persona.formats.JsonObject
import dev.persona.formats.JsonString
import dev.persona.formats.JsonValue
import dev.persona.formats.KEYS_MEDIA_TYPE
import dev.persona.formats.MAX_KEYS_BYTES
import dev.persona.formats.Measurement
import dev.persona.formats.OBSERVATION_MEDIA_TYPE
import dev.persona.formats.jsonObject
import dev.persona.formats.parseJson
import dev.persona.formats.parseWhole
import dev.persona.formats.toSafetensors
import dev.persona.formats.write
import java.net.URLEncoder
import java.util.Random
import java.util.UUID

/** The cloud refused: [code] is stable, the message says what to do. */
class CloudError(val code: String, message: String) : Exception(message)

/** Who the cloud says that we are. [token] is a secret: it never goes into a log. */
class Enrolment(val device: String, val token: String)

/**
 * An edit as it came: not yet verified.
 *
 * @property keys sequence of the cloud's newest key document; 0 where it has none
 */
class SignedEdit(val data: ByteArray, val signature: DetachedSignature, val keys: Long = 0)

/** A key document as it came: not yet verified. */
class SignedKeys(val data: ByteArray, val signature: DetachedSignature)

/** A model of the cloud, and the [bundle] (sha256 of its manifest) that edits are made for. */
data class CloudModel(val model: String, val task: String, val bundle: String)

/**
 * Talks to one cloud. All calls block, and throw [OfflineException] where no answer comes and
 * [CloudError] where the cloud refuses. A request that failed on the way is repeated with the same
 * idempotency key, so the cloud answers with the same edit instead of making another.
 */
class CloudClient
internal constructor(
    private val transport: HttpTransport,
    private val retries: Retries,
) {
    /**
     * @param address such as `http://192.168.1.2:8080`; IllegalArgumentException where it is not
     *   `http://` or `https://` with a host
     */
    constructor(
        address: String
    ) : this(HttpTransport(address), Retries(Thread::sleep, Random()::nextDouble))

    /** The cloud's address. */
    val address: String
        get() = transport.address

    /** The models that the cloud has. */
    fun models(): List<CloudModel> {
        val list = document(HttpRequest("GET", "/v1/models"))["models"] as? JsonArray
        return list?.elements?.map { model ->
            CloudModel(text(model, "model"), text(model, "task"), text(model, "bundle"))
        } ?: throw notACloud()
    }

    /** Becomes a device. */
    fun enrol(): Enrolment {
        val body = jsonObject("platform" to JsonString("android")).write().toByteArray()
        val answer = document(HttpRequest("POST", "/v1/devices", JSON_HEADERS, body))
        return Enrolment(text(answer, "device"), text(answer, "token"))
    }

    /** Another token for the same device. The old one stays good until the new one is used. */
    fun renew(enrolment: Enrolment): Enrolment {
        val path = "/v1/devices/${quote(enrolment.device)}/token"
        val answer = document(HttpRequest("POST", path, bearer(enrolment.token), ByteArray(0)))
        return Enrolment(enrolment.device, text(answer, "token"))
    }

    /**
     * Sends an observation, gets an edit.
     *
     * @param maxEditBytes what the bundle allows; no more is read than shows that it is longer
     */
    fun requestEdit(
        token: String,
        model: String,
        envelope: Envelope,
        maxEditBytes: Long,
    ): SignedEdit {
        val headers =
            bearer(token) +
                mapOf(
                    "Content-Type" to OBSERVATION_MEDIA_TYPE,
                    "Accept" to EDIT_MEDIA_TYPE,
                    "Idempotency-Key" to UUID.randomUUID().toString(),
                )
        val path = "/v1/models/${quote(model)}/edits"
        return send(HttpRequest("POST", path, headers, envelope.toSafetensors())) { answer ->
            val keys = parseWhole(answer.header("Persona-Keys") ?: "") ?: 0
            SignedEdit(answer.bytes(maxEditBytes + 1), signature(answer), keys)
        }
    }

    /** A key document, the newest unless a [sequence] is named; null where there is none. */
    fun keys(sequence: Long? = null): SignedKeys? {
        val path = if (sequence == null) "/v1/keys" else "/v1/keys/$sequence"
        return try {
            send(HttpRequest("GET", path, mapOf("Accept" to KEYS_MEDIA_TYPE))) { answer ->
                SignedKeys(answer.bytes(MAX_KEYS_BYTES + 1), signature(answer))
            }
        } catch (e: CloudError) {
            if (e.code != "keys.none") throw e
            null
        }
    }

    /** Of what the cloud signed. A page without one is of somebody else on the way. */
    private fun signature(answer: HttpAnswer) =
        DetachedSignature.ofHeaders(
            answer.header("Persona-Key-Id") ?: throw notACloud(),
            answer.header("Persona-Signature") ?: throw notACloud(),
        )

    /** Reports a measurement. */
    fun report(token: String, measurement: Measurement) {
        val body = measurement.toJson().write().toByteArray()
        send(HttpRequest("POST", "/v1/measurements", bearer(token) + JSON_HEADERS, body)) {}
    }

    /** A small file of the model's bundle: `manifest.json` or `manifest.sig`. */
    internal fun bundleFile(model: String, file: String): ByteArray =
        send(HttpRequest("GET", bundlePath(model, file))) { it.bytes(MAX_MANIFEST_BYTES) }

    /**
     * A file of the model's bundle from byte [from] on; asked anew for each attempt.
     *
     * @param etag of the bytes that we have; where the cloud has others by now, all come
     * @param use gets the answer: status 206 with what is missing, or 200 with all
     */
    internal fun <T> bundleFile(
        model: String,
        file: String,
        etag: String,
        from: () -> Long,
        use: (HttpAnswer) -> T,
    ): T {
        val request = {
            val first = from()
            val range = mapOf("Range" to "bytes=$first-", "If-Range" to "\"$etag\"")
            HttpRequest("GET", bundlePath(model, file), if (first > 0) range else emptyMap())
        }
        return send(request, use)
    }

    private fun bundlePath(model: String, file: String) =
        "/v1/models/${quote(model)}/bundle/" +
            file.split("/").joinToString("/", transform = ::quote)

    private fun document(request: HttpRequest): JsonObject =
        send(request) { parse(it.bytes(MAX_JSON_BYTES)) } ?: throw notACloud()

    private fun <T> send(request: HttpRequest, use: (HttpAnswer) -> T): T = send({ request }, use)

    private fun <T> send(request: () -> HttpRequest, use: (HttpAnswer) -> T): T =
        retries.send(transport, request) { answer ->
            if (answer.status !in 200..299) throw refusal(answer)
            use(answer)
        }

    private fun refusal(answer: HttpAnswer): CloudError {
        val problem = parse(answer.bytes(MAX_JSON_BYTES))
        val (code, detail) =
            listOf("code", "detail").map { (problem?.get(it) as? JsonString)?.value }
        if (code != null && detail != null) return CloudError(code, detail)
        return CloudError("http.error", "status ${answer.status} without an explanation")
    }

    private fun parse(data: ByteArray): JsonObject? =
        try {
            parseJson(data) as? JsonObject
        } catch (_: JsonException) {
            null
        }

    private fun text(answer: JsonValue, name: String): String =
        ((answer as? JsonObject)?.get(name) as? JsonString)?.value ?: throw notACloud()

    private fun notACloud() =
        CloudError(
            "http.error",
            "$address did not answer as a Persona cloud does; check the address, and whether the " +
                "network wants a sign-in",
        )

    private companion object {
        const val MAX_JSON_BYTES = 1_048_576L
        const val MAX_MANIFEST_BYTES = 16_777_216L
        val JSON_HEADERS = mapOf("Content-Type" to "application/json")

        fun bearer(token: String) = mapOf("Authorization" to "Bearer $token")

        fun quote(part: String): String = URLEncoder.encode(part, "UTF-8").replace("+", "%20")
    }
}
