package dev.persona.device

import com.sun.net.httpserver.HttpExchange
import com.sun.net.httpserver.HttpServer
import dev.persona.formats.DetachedSignature
import dev.persona.formats.JsonString
import dev.persona.formats.PersonaError
import dev.persona.formats.jsonObject
import dev.persona.formats.readObservation
import dev.persona.formats.toBase64
import dev.persona.formats.write
import java.io.File
import java.net.InetAddress
import java.net.InetSocketAddress
import java.security.MessageDigest
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.Executors

/** What came to the test cloud. */
class Seen(val method: String, val path: String, val headers: Map<String, String>, val body: ByteArray)

/** How an answer fails. */
sealed interface Fault {
    /** A problem document with this status and code. */
    class Problem(val status: Int, val code: String, val retryAfter: String? = null) : Fault

    /** The connection ends without an answer. */
    object Dropped : Fault

    /** Half of the right answer, then the connection ends. */
    object CutOff : Fault

    /** A page of a network that wants a sign-in. */
    object SignIn : Fault
}

/**
 * A cloud on this machine: a real HTTP server that enrols, renews, signs edits for [made], hands out
 * its files and key documents, and fails as it is told to.
 */
class TestCloud(private val made: TestBundle) : AutoCloseable {
    private val server = HttpServer.create(InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0)
    private val threads = Executors.newCachedThreadPool()
    private val bundle = made.open()
    private val edits = HashMap<String, SignedEdit>()
    private var enrolments = 0
    private var tokens = 0
    private var sequence = 0L

    val requests = CopyOnWriteArrayList<Seen>()
    /** Of the next answers, in order; null is none. */
    val faults = ArrayDeque<Fault?>()
    val address = "http://127.0.0.1:${server.address.port}"

    /** The token that is taken, and the newest device's id. */
    val token
        get() = "token-$tokens"

    val device
        get() = "device $enrolments/ä"

    /** What the next edit says, around which prototype, and who signs it. */
    var values = TestBundle.EXAMPLE
    var prototype: Int? = null
    var signer = made.cloud

    /** Key documents, the newest last. */
    val documents = CopyOnWriteArrayList<SignedKeys>()

    init {
        server.executor = threads
        server.createContext("/") { exchange -> exchange.use(::answer) }
        server.start()
    }

    override fun close() {
        server.stop(0)
        threads.shutdownNow()
    }

    private fun HttpExchange.use(body: (HttpExchange) -> Unit) {
        try {
            body(this)
        } finally {
            close()
        }
    }

    @Synchronized
    private fun answer(exchange: HttpExchange) {
        val headers = exchange.requestHeaders.mapValues { it.value.first() }
        val path = exchange.requestURI.rawPath
        requests += Seen(exchange.requestMethod, path, headers, exchange.requestBody.readBytes())
        when (val fault = faults.removeFirstOrNull()) {
            null -> serve(exchange, requests.last(), cut = false)
            is Fault.CutOff -> serve(exchange, requests.last(), cut = true)
            is Fault.Dropped -> Unit
            is Fault.Problem -> {
                fault.retryAfter?.let { exchange.responseHeaders["Retry-After"] = it }
                problem(exchange, fault.status, fault.code)
            }
            is Fault.SignIn -> send(exchange, 200, "<html>Welcome</html>".toByteArray())
        }
    }

    private fun serve(exchange: HttpExchange, request: Seen, cut: Boolean) {
        val path = request.path
        when {
            path == "/v1/devices" -> {
                enrolments++
                tokens++
                json(exchange, 201, "device" to device, "token" to token)
            }
            path.endsWith("/token") -> {
                tokens++
                json(exchange, 201, "token" to token)
            }
            path == "/v1/models/by-hand/edits" -> edit(exchange, request, cut)
            path == "/v1/keys" -> keys(exchange, documents.size)
            path.startsWith("/v1/keys/") -> keys(exchange, path.removePrefix("/v1/keys/").toInt())
            path == "/v1/measurements" ->
                if (isAuthorised(request)) json(exchange, 201, "received_at" to "now")
                else problem(exchange, 401, "token.unknown")
            path == "/v1/models" -> {
                val model = """{"model": "by-hand", "task": "classification", "bundle": "${bundle.digest}"}"""
                send(exchange, 200, """{"models": [$model]}""".toByteArray())
            }
            path.startsWith(FILES) -> file(exchange, request, path.removePrefix(FILES), cut)
            else -> problem(exchange, 404, "request.path")
        }
    }

    private fun isAuthorised(request: Seen) = request.headers["Authorization"] == "Bearer $token"

    private fun edit(exchange: HttpExchange, request: Seen, cut: Boolean) {
        if (!isAuthorised(request)) return problem(exchange, 401, "token.unknown")
        try {
            readObservation(bundle.manifest.observation, request.body)
        } catch (e: PersonaError) {
            return problem(exchange, 422, e.code.text)
        }
        val key = request.headers.getValue("Idempotency-key")
        val edit =
            edits.getOrPut(key) {
                made.edit(bundle, ++sequence, values, prototype, device, signer = signer)
            }
        if (documents.isNotEmpty()) exchange.responseHeaders["Persona-Keys"] = "${documents.size}"
        signed(exchange, edit.signature)
        send(exchange, 200, edit.data, cut)
    }

    private fun keys(exchange: HttpExchange, sequence: Int) {
        val document =
            documents.getOrNull(sequence - 1) ?: return problem(exchange, 404, "keys.none")
        signed(exchange, document.signature)
        send(exchange, 200, document.data)
    }

    private fun signed(exchange: HttpExchange, signature: DetachedSignature) {
        exchange.responseHeaders["Persona-Key-Id"] = signature.keyId
        exchange.responseHeaders["Persona-Signature"] = toBase64(signature.der)
    }

    private fun file(exchange: HttpExchange, request: Seen, name: String, cut: Boolean) {
        val data = File(made.folder, name).readBytes()
        val digest = MessageDigest.getInstance("SHA-256").digest(data)
        val etag = "\"${digest.joinToString("") { "%02x".format(it) }}\""
        exchange.responseHeaders["ETag"] = etag
        val range = request.headers["Range"]
        if (range != null && request.headers["If-range"] == etag) {
            val from = range.removePrefix("bytes=").removeSuffix("-").toInt()
            send(exchange, 206, data.copyOfRange(from, data.size), cut)
        } else {
            send(exchange, 200, data, cut)
        }
    }

    private fun json(exchange: HttpExchange, status: Int, vararg members: Pair<String, String>) {
        val document = jsonObject(*members.map { it.first to JsonString(it.second) }.toTypedArray())
        send(exchange, status, document.write().toByteArray())
    }

    private fun problem(exchange: HttpExchange, status: Int, code: String) {
        exchange.responseHeaders["WWW-Authenticate"] = "Bearer"
        json(exchange, status, "code" to code, "detail" to "what to do")
    }

    private fun send(exchange: HttpExchange, status: Int, data: ByteArray, cut: Boolean = false) {
        exchange.sendResponseHeaders(status, if (data.isEmpty()) -1 else data.size.toLong())
        exchange.responseBody.write(if (cut) data.copyOf(data.size / 2) else data)
    }

    private companion object {
        const val FILES = "/v1/models/by-hand/bundle/"
    }
}
