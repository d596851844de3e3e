package dev.persona.formats

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/** A JSON value (RFC 8259). Objects keep the order of their members. */
sealed interface JsonValue

/** `null` */
object JsonNull : JsonValue {
    override fun toString() = "null"
}

/** `true` or `false` */
data class JsonBoolean(val value: Boolean) : JsonValue

/** A number without fraction and exponent whose magnitude is at most [MAX_WHOLE]; not `-0`. */
data class JsonWhole(val value: Long) : JsonValue

/** Any other number, finite in binary64. */
data class JsonReal(val value: Double) : JsonValue

/** A string without half surrogate pairs. */
data class JsonString(val value: String) : JsonValue

/** A list. */
data class JsonArray(val elements: List<JsonValue>) : JsonValue

/** An object. */
data class JsonObject(val members: Map<String, JsonValue>) : JsonValue {
    operator fun get(name: String): JsonValue? = members[name]
}

/** Largest whole number: what every language's JSON reader holds exactly. */
const val MAX_WHOLE = 9_007_199_254_740_991L

/** Deepest nesting of arrays and objects; the outermost is 1. */
const val MAX_JSON_DEPTH = 64

/** Text that is not strict JSON. */
open class JsonException(message: String) : Exception(message)

/** The only fault is that an object names a key twice: readers differ in which value they take. */
class RepeatedKeyException(message: String) : JsonException(message)

/**
 * Reads UTF-8 JSON strictly: what two readers could understand differently is refused.
 *
 * @param wholeNumbersOnly refuses every number that is not plain digits up to [MAX_WHOLE]
 * @throws JsonException for everything that is not strict JSON
 * @throws RepeatedKeyException if that is the only fault
 */
fun parseJson(utf8: ByteArray, wholeNumbersOnly: Boolean = false): JsonValue =
    JsonParser(decodeUtf8(utf8), wholeNumbersOnly).parse()

private fun decodeUtf8(bytes: ByteArray): String {
    val decoder = Charsets.UTF_8.newDecoder()
    decoder.onMalformedInput(CodingErrorAction.REPORT)
    decoder.onUnmappableCharacter(CodingErrorAction.REPORT)
    return try {
        decoder.decode(ByteBuffer.wrap(bytes)).toString()
    } catch (_: CharacterCodingException) {
        throw JsonException("expected UTF-8, got bytes that are not")
    }
}

private class JsonParser(private val text: String, private val wholeNumbersOnly: Boolean) {
    private var at = 0
    private var repeatedKey: String? = null

    fun parse(): JsonValue {
        val value = value(depth = 1)
        skipSpace()
        if (at < text.length) fault("expected the end")
        repeatedKey?.let { throw RepeatedKeyException("\"$it\" stands twice in one object") }
        return value
    }

    private fun value(depth: Int): JsonValue {
        skipSpace()
        return when (peek()) {
            '{' -> obj(depth)
            '[' -> array(depth)
            '"' -> JsonString(string())
            't' -> word("true", JsonBoolean(true))
            'f' -> word("false", JsonBoolean(false))
            'n' -> word("null", JsonNull)
            else -> number()
        }
    }

    private fun obj(depth: Int): JsonObject {
        checkDepth(depth)
        at++
        val members = LinkedHashMap<String, JsonValue>()
        skipSpace()
        if (!skip('}')) {
            do {
                skipSpace()
                if (peek() != '"') fault("expected a key")
                val key = string()
                skipSpace()
                if (!skip(':')) fault("expected ':'")
                if (key in members) repeatedKey = key
                members[key] = value(depth + 1)
                skipSpace()
            } while (skip(','))
            if (!skip('}')) fault("expected ',' or '}'")
        }
        return JsonObject(members)
    }

    private fun array(depth: Int): JsonArray {
        checkDepth(depth)
        at++
        val elements = ArrayList<JsonValue>()
        skipSpace()
        if (!skip(']')) {
            do {
                elements += value(depth + 1)
                skipSpace()
            } while (skip(','))
            if (!skip(']')) fault("expected ',' or ']'")
        }
        return JsonArray(elements)
    }

    private fun checkDepth(depth: Int) {
        if (depth > MAX_JSON_DEPTH) fault("expected no nesting deeper than $MAX_JSON_DEPTH")
    }

    private fun string(): String {
        at++
        val out = StringBuilder()
        while (true) {
            val c = peek()
            at++
            when {
                c == '"' -> break
                c == END || c < ' ' -> fault("expected the end of a string, no control character")
                c == '\\' -> out.append(escape())
                else -> out.append(c)
            }
        }
        if (hasHalfPair(out)) fault("a string holds half a surrogate pair")
        return out.toString()
    }

    private fun escape(): Char {
        val c = peek()
        at++
        return when (c) {
            '"', '\\', '/' -> c
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> hex()
            else -> fault("unknown escape")
        }
    }

    private fun hex(): Char {
        var code = 0
        repeat(4) {
            val c = peek()
            val digit =
                when (c) {
                    in '0'..'9' -> c - '0'
                    in 'a'..'f' -> c - 'a' + 10
                    in 'A'..'F' -> c - 'A' + 10
                    else -> fault("expected four hex digits")
                }
            at++
            code = code * 16 + digit
        }
        return code.toChar()
    }

    private fun hasHalfPair(string: CharSequence): Boolean {
        var i = 0
        while (i < string.length) {
            val c = string[i]
            if (c.isHighSurrogate() && i + 1 < string.length && string[i + 1].isLowSurrogate()) i++
            else if (c.isSurrogate()) return true
            i++
        }
        return false
    }

    private fun word(word: String, value: JsonValue): JsonValue {
        if (!text.startsWith(word, at)) fault("expected a value")
        at += word.length
        return value
    }

    private fun number(): JsonValue {
        val start = at
        skip('-')
        if (!skip('0')) digits()
        val whole = at
        if (skip('.')) digits()
        if (skip('e') || skip('E')) {
            if (!skip('+')) skip('-')
            digits()
        }
        val word = text.substring(start, at)
        val number = if (at == whole) wholeNumber(word) else null
        if (wholeNumbersOnly && (number == null || word[0] == '-')) {
            fault("${word.take(40)} is not a whole number up to $MAX_WHOLE")
        }
        if (number != null) return JsonWhole(number)
        val real = word.toDouble()
        if (real.isInfinite()) fault("${word.take(40)} is beyond binary64")
        return JsonReal(real)
    }

    /** The number in a word of digits, or null for -0 and beyond [MAX_WHOLE]. */
    private fun wholeNumber(word: String): Long? =
        if (word == "-0") null
        else word.toLongOrNull()?.takeIf { it in -MAX_WHOLE..MAX_WHOLE }

    private fun digits() {
        val start = at
        while (peek() in '0'..'9') at++
        if (at == start) fault("expected a value")
    }

    private fun skipSpace() {
        while (at < text.length && text[at] in " \t\n\r") at++
    }

    private fun skip(wanted: Char): Boolean {
        if (peek() != wanted) return false
        at++
        return true
    }

    private fun peek(): Char = if (at < text.length) text[at] else END

    private fun fault(expected: String): Nothing =
        throw JsonException("$expected at character ${minOf(at, text.length)}")

    private companion object {
        /** Stands for the end of the text. The character itself is no JSON anywhere. */
        const val END = '\u0000'
    }
}

/** Writes JSON in one line. IllegalArgumentException for a real number that is not finite. */
fun JsonValue.write(): String = buildString { writeTo(this) }

private fun JsonValue.writeTo(out: StringBuilder) {
    when (this) {
        is JsonNull -> out.append("null")
        is JsonBoolean -> out.append(value)
        is JsonWhole -> out.append(value)
        is JsonReal -> {
            require(value.isFinite()) { "JSON has no $value" }
            out.append(value)
        }
        is JsonString -> writeString(value, out)
        is JsonArray -> {
            out.append('[')
            elements.forEachIndexed { i, element ->
                if (i > 0) out.append(", ")
                element.writeTo(out)
            }
            out.append(']')
        }
        is JsonObject -> {
            out.append('{')
            members.entries.forEachIndexed { i, (name, element) ->
                if (i > 0) out.append(", ")
                writeString(name, out)
                out.append(": ")
                element.writeTo(out)
            }
            out.append('}')
        }
    }
}

private fun writeString(value: String, out: StringBuilder) {
    out.append('"')
    for (c in value) {
        when {
            c == '"' || c == '\\' -> out.append('\\').append(c)
            c < ' ' -> out.append("\\u").append(c.code.toString(16).padStart(4, '0'))
            else -> out.append(c)
        }
    }
    out.append('"')
}

/** An object of the members that are not null. */
fun jsonObject(vararg members: Pair<String, JsonValue?>): JsonObject {
    val present = LinkedHashMap<String, JsonValue>()
    for ((name, value) in members) if (value != null) present[name] = value
    return JsonObject(present)
}
