package dev.persona.formats

import java.math.BigInteger
import java.security.KeyFactory
import java.security.MessageDigest
import java.security.PublicKey
import java.security.Signature
import java.security.SignatureException
import java.security.spec.X509EncodedKeySpec

/**
 * ECDSA on P-256 with SHA-256. Platforms read DER and keys more or less leniently, so both are
 * looked at here first, and the platform sees only what every platform takes alike.
 */
internal object Ecdsa {
    /** SubjectPublicKeyInfo of a P-256 key up to its point: 26 bytes, then 04, x and y. */
    private val PREFIX = hex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
    private const val KEY_BYTES = 91

    private val P =
        BigInteger("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff", 16)
    private val B =
        BigInteger("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b", 16)
    private val ORDER =
        BigInteger("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)

    /** The key in [der], or null where it is not a P-256 point, uncompressed, on the curve. */
    fun publicKey(der: ByteArray): PublicKey? {
        val point = PREFIX.size
        if (der.size != KEY_BYTES || !der.copyOf(point).contentEquals(PREFIX)) return null
        if (der[point].toInt() != 4) return null
        val x = BigInteger(1, der.copyOfRange(point + 1, point + 33))
        val y = BigInteger(1, der.copyOfRange(point + 33, KEY_BYTES))
        val curve = x.pow(3) - BigInteger.valueOf(3) * x + B
        if (x >= P || y >= P || (y * y - curve).mod(P).signum() != 0) return null
        return KeyFactory.getInstance("EC").generatePublic(X509EncodedKeySpec(der))
    }

    /** Whether [signature] (DER) over [data] is by [key]. */
    fun verifies(key: PublicKey, signature: ByteArray, data: ByteArray): Boolean {
        if (!isStrict(signature)) return false
        val verifier = Signature.getInstance("SHA256withECDSA")
        verifier.initVerify(key)
        verifier.update(data)
        return try {
            verifier.verify(signature)
        } catch (_: SignatureException) {
            false
        }
    }

    /** Whether these bytes are a SEQUENCE of two INTEGERs from 1 to n - 1, minimal, and no more. */
    private fun isStrict(der: ByteArray): Boolean {
        if (der.size < 2 || der[0].toInt() != 0x30 || der[1].toInt() != der.size - 2) return false
        val r = integer(der, 2) ?: return false
        val s = integer(der, 4 + r.size) ?: return false
        return 4 + r.size + 2 + s.size == der.size && inRange(r) && inRange(s)
    }

    /** Content of the INTEGER at [at], if it is minimal, not negative, and ends within [der]. */
    private fun integer(der: ByteArray, at: Int): ByteArray? {
        if (at + 2 > der.size || der[at].toInt() != 0x02) return null
        val length = der[at + 1].toInt()
        if (length < 1 || at + 2 + length > der.size) return null
        val content = der.copyOfRange(at + 2, at + 2 + length)
        val padded = length > 1 && content[0].toInt() == 0 && content[1] >= 0
        return content.takeUnless { padded || content[0] < 0 }
    }

    private fun inRange(content: ByteArray): Boolean =
        BigInteger(content).let { it.signum() > 0 && it < ORDER }
}

internal fun sha256(data: ByteArray): String =
    hex(MessageDigest.getInstance("SHA-256").digest(data))

/** Lower-case hex digits of [bytes]. */
internal fun hex(bytes: ByteArray): String = bytes.joinToString("") { "%02x".format(it) }

private fun hex(text: String): ByteArray =
    ByteArray(text.length / 2) { text.substring(2 * it, 2 * it + 2).toInt(16).toByte() }
