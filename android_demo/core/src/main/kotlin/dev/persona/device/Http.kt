package dev.persona.device

import java.io.ByteArrayOutputStream
import java.io.Closeable
import java.io.FilterInputStream
import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.URI
import java.net.URISyntaxException
import java.net.URL

/** The cloud cannot be reached, or is overloaded, after all attempts. */
class OfflineException(message: String) : Exception(message)

/** One request. [path] is from the cloud's address on, and begins with `/`. */
internal class HttpRequest(
    val method: String,
    val path: String,
    val headers: Map<String, String> = emptyMap(),
    val body: ByteArray? = null,
)

/** One answer, while it is being read. */
internal class HttpAnswer(private val connection: HttpURLConnection) : Closeable {
    /** Throws IOException where no answer comes. */
    val status: Int = connection.responseCode

    fun header(name: String): String? = connection.getHeaderField(name)

    /** The body; empty where there is none. One that is cut off ends with an IOException. */
    val body: InputStream =
        WholeBody(
            (if (status < 400) connection.inputStream else connection.errorStream) ?: NO_BYTES,
            header("Content-Length")?.toLongOrNull() ?: 0,
        )

    /** The body, but at most [most] bytes of it. */
    fun bytes(most: Long): ByteArray {
        val out = ByteArrayOutputStream()
        val piece = ByteArray(16_384)
        while (out.size() < most) {
            val read = body.read(piece, 0, minOf(piece.size.toLong(), most - out.size()).toInt())
            if (read < 0) break
            out.write(piece, 0, read)
        }
        return out.toByteArray()
    }

    override fun close() {
        body.close()
    }

    private companion object {
        val NO_BYTES: InputStream = ByteArray(0).inputStream()
    }
}

/** A body of at least [length] bytes: not all platforms notice where the connection ends before. */
private class WholeBody(stream: InputStream, private val length: Long) : FilterInputStream(stream) {
    private var came = 0L

    override fun read(): Int {
        val one = ByteArray(1)
        return if (read(one, 0, 1) < 0) -1 else one[0].toInt() and 0xff
    }

    override fun read(bytes: ByteArray, offset: Int, most: Int): Int {
        val read = super.read(bytes, offset, most)
        if (read >= 0) came += read
        else if (came < length) throw IOException("the answer ended after $came of $length bytes")
        return read
    }
}

/** One exchange with one server, over the platform's own client. */
internal class HttpTransport(address: String) {
    /** The server's address without a `/` at its end. */
    val address: String = address.trimEnd('/').also(::checkAddress)

    /** Sends a request once. Throws IOException where no answer comes. */
    fun send(request: HttpRequest): HttpAnswer {
        val connection = URL(address + request.path).openConnection() as HttpURLConnection
        connection.requestMethod = request.method
        connection.connectTimeout = TIMEOUT_MS
        connection.readTimeout = TIMEOUT_MS
        connection.instanceFollowRedirects = false
        connection.useCaches = false
        // Platforms unpack what they asked to have packed, and then lengths and ranges do not fit.
        connection.setRequestProperty("Accept-Encoding", "identity")
        request.headers.forEach(connection::setRequestProperty)
        if (request.body != null) {
            connection.doOutput = true
            connection.outputStream.use { it.write(request.body) }
        }
        return HttpAnswer(connection)
    }

    private companion object {
        const val TIMEOUT_MS = 10_000
    }
}

/** Whether [text] is `http://` or `https://` with a host, and no more than that and a path. */
private fun checkAddress(text: String) {
    val fits =
        try {
            val uri = URI(text)
            uri.scheme?.lowercase() in listOf("http", "https") &&
                !uri.host.isNullOrEmpty() &&
                uri.port <= 65_535 &&
                listOf(uri.rawQuery, uri.rawFragment, uri.rawUserInfo).all { it == null }
        } catch (_: URISyntaxException) {
            false
        }
    require(fits) {
        "\"$text\" is not the address of a cloud; expected one such as http://192.168.1.2:8080"
    }
}

/**
 * Repeats what the network or an overloaded cloud was at fault for: after [BACK_OFF_MS], doubled
 * each time, or after the seconds that `Retry-After` says, up to [LONGEST_WAIT_MS]. By chance up to
 * half is added: phones that were refused together would else come back together.
 *
 * @param random a number from 0 to 1
 */
internal class Retries(private val sleep: (Long) -> Unit, private val random: () -> Double) {
    /**
     * What [use] makes of the first answer that is not worth repeating. Where reading it fails,
     * too, a [request] is made and sent again.
     */
    fun <T> send(transport: HttpTransport, request: () -> HttpRequest, use: (HttpAnswer) -> T): T {
        var reason = ""
        for (attempt in 0 until ATTEMPTS) {
            var pause = BACK_OFF_MS * (1 shl attempt)
            try {
                transport.send(request()).use { answer ->
                    if (answer.status !in PASSING) return use(answer)
                    reason = "status ${answer.status}"
                    pause = maxOf(pause, retryAfterMs(answer.header("Retry-After")))
                }
            } catch (e: IOException) {
                reason = e.message ?: e.javaClass.simpleName
            }
            if (attempt < ATTEMPTS - 1) sleep((pause * (1 + random() / 2)).toLong())
        }
        throw OfflineException(
            "${transport.address} did not answer after $ATTEMPTS attempts ($reason)"
        )
    }

    private fun retryAfterMs(text: String?): Long =
        if (text != null && Regex("[0-9]{1,9}").matches(text)) {
            minOf(text.toLong() * 1000, LONGEST_WAIT_MS)
        } else {
            0
        }

    companion object {
        const val ATTEMPTS = 3
        const val BACK_OFF_MS = 200L
        const val LONGEST_WAIT_MS = 5_000L
        private val PASSING = listOf(429, 502, 503, 504)
    }
}
