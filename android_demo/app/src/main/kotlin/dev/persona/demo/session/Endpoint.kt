package dev.persona.demo.session

import java.net.URI
import java.net.URISyntaxException
import java.net.URLDecoder

/**
 * The address of a cloud adapter as the app takes it: https anywhere, http only to an address of a
 * private network and only in a debug build.
 */
sealed interface Endpoint {
    /**
     * An address that may be used; [url] has no slash at its end.
     *
     * @property publisher id of the key that must have signed its bundles; null for any trusted one
     */
    data class Usable(val url: String, val publisher: String? = null) : Endpoint

    /** Why a text is not taken. */
    enum class Refusal : Endpoint {
        NOT_AN_ADDRESS,
        CLEARTEXT_IN_RELEASE,
        CLEARTEXT_TO_PUBLIC,
    }

    companion object {
        /**
         * What a QR code holds: `persona://connect?endpoint=URL&publisher=ID`, the URL
         * percent-encoded; the publisher may be left out.
         */
        const val LINK_SCHEME = "persona"

        /** Reads what a person typed, or a link. [debug]: whether this is a debug build. */
        fun of(text: String, debug: Boolean): Endpoint {
            val uri = address(linked(text.trim())) ?: return Refusal.NOT_AN_ADDRESS
            val publisher = parameter(text.trim(), "publisher")
            val named = publisher == null || KEY_ID.matches(publisher)
            return when {
                !named -> Refusal.NOT_AN_ADDRESS
                uri.scheme == "https" || debug && isPrivate(uri.host) ->
                    Usable(uri.toString().trimEnd('/'), publisher)
                !debug -> Refusal.CLEARTEXT_IN_RELEASE
                else -> Refusal.CLEARTEXT_TO_PUBLIC
            }
        }

        /** The address in a link; any other text as it is. */
        fun linked(text: String): String {
            if (!isLink(text)) return text
            return parameter(text, "endpoint").orEmpty()
        }

        private fun isLink(text: String) = text.startsWith("$LINK_SCHEME://")

        /** What a link says under this name; null where [text] is no link or says nothing. */
        private fun parameter(text: String, name: String): String? {
            if (!isLink(text)) return null
            val query = text.substringAfter('?', "")
            val found = query.split('&').firstOrNull { it.startsWith("$name=") } ?: return null
            return try {
                URLDecoder.decode(found.removePrefix("$name="), "UTF-8")
            } catch (_: IllegalArgumentException) {
                ""
            }
        }

        private fun address(text: String): URI? {
            val uri = try {
                URI(if ("://" in text) text else "http://$text")
            } catch (_: URISyntaxException) {
                return null
            }
            val plain = uri.userInfo == null && uri.query == null && uri.fragment == null
            val known = uri.scheme == "http" || uri.scheme == "https"
            return uri.takeIf { known && plain && !uri.host.isNullOrEmpty() && uri.port <= MAX_PORT }
        }

        /**
         * Loopback, link-local and private ranges (RFC 1918, RFC 4193), written as numbers, and
         * `localhost`. A name says nothing of where it leads, so no other name counts.
         */
        fun isPrivate(host: String): Boolean {
            if (host == "localhost") return true
            if (host.startsWith("[")) return isPrivate6(host.removeSurrounding("[", "]").lowercase())
            val parts = host.split('.').map { it.toIntOrNull() ?: return false }
            // Spelled in this one way: 010 is 10 to some readers and 8 to others.
            if (parts.size != 4 || parts.any { it !in 0..255 } || parts.joinToString(".") != host) return false
            return when (parts[0]) {
                10, 127 -> true
                172 -> parts[1] in 16..31
                192 -> parts[1] == 168
                169 -> parts[1] == 254
                else -> false
            }
        }

        private fun isPrivate6(host: String): Boolean =
            host == "::1" || host.length > 4 && host[4] == ':' &&
                (host.startsWith("fc") || host.startsWith("fd") || host.startsWith("fe80"))

        private const val MAX_PORT = 65_535
        private val KEY_ID = Regex("[0-9a-f]{16}")
    }
}
