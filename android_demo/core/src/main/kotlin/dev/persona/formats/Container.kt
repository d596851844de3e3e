package dev.persona.formats

import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Longest header that a reader accepts; an edit of a hundred slots needs a tenth of it. */
const val MAX_HEADER_BYTES = 65_536

/** Longest header of a bundle's tensor file: about ten thousand tensors. */
const val MAX_BUNDLE_HEADER_BYTES = 1_048_576

private const val MAX_DIMENSIONS = 8

private val DTYPE_BYTES =
    mapOf(
        "BOOL" to 1L,
        "U8" to 1L,
        "I8" to 1L,
        "F8_E5M2" to 1L,
        "F8_E4M3" to 1L,
        "I16" to 2L,
        "U16" to 2L,
        "F16" to 2L,
        "BF16" to 2L,
        "I32" to 4L,
        "U32" to 4L,
        "F32" to 4L,
        "F64" to 8L,
        "I64" to 8L,
        "U64" to 8L,
    )

/** A tensor as the container holds it: dtype name, shape, and where its bytes lie in the file. */
class StoredTensor
internal constructor(
    val dtype: String,
    val shape: List<Long>,
    private val file: ByteArray,
    private val begin: Int,
    private val end: Int,
) {
    private val bytes: ByteBuffer
        get() = ByteBuffer.wrap(file, begin, end - begin).order(ByteOrder.LITTLE_ENDIAN)

    /** The values of an F16 or F32 tensor as binary32. */
    fun floats(): FloatTensor {
        val values =
            when (dtype) {
                "F32" -> FloatArray((end - begin) / 4).also { bytes.asFloatBuffer().get(it) }
                "F16" ->
                    bytes.asShortBuffer().let { halves ->
                        FloatArray(halves.remaining()) {
                            halfToFloat(halves.get(it).toInt() and 0xffff)
                        }
                    }
                else -> error("expected F16 or F32 values, got $dtype")
            }
        return FloatTensor(shape, values)
    }

    /** The values of an I64 tensor. */
    fun longs(): LongTensor {
        check(dtype == "I64") { "expected I64 values, got $dtype" }
        return LongTensor(shape, LongArray((end - begin) / 8).also { bytes.asLongBuffer().get(it) })
    }
}

/**
 * A safetensors file, read strictly: header, then tensor bytes without hole or overlap
 * (`docs/edit-format.md`, "Container").
 *
 * @property tensors in the header's order
 */
class Container
private constructor(val tensors: Map<String, StoredTensor>, val metadata: Map<String, String>) {
    companion object {
        /** Reads a container. Throws [PersonaError] with a `container.*` code. */
        fun decode(file: ByteArray, maxHeaderBytes: Int = MAX_HEADER_BYTES): Container {
            val (header, start) = header(file, maxHeaderBytes)
            val metadata = header[METADATA]?.let(::metadata) ?: emptyMap()
            val entries = header.members.filterKeys { it != METADATA }.map { (n, v) -> entry(n, v) }
            checkLayout(entries, (file.size - start).toLong())
            val tensors = LinkedHashMap<String, StoredTensor>()
            for (e in entries) {
                val (begin, end) = start + e.begin.toInt() to start + e.end.toInt()
                tensors[e.name] = StoredTensor(e.dtype, e.shape, file, begin, end)
            }
            return Container(tensors, metadata)
        }

        /** Writes tensors (F32 and I64) in the order given, and string metadata. */
        fun encode(tensors: Map<String, PortValue>, metadata: Map<String, String>): ByteArray {
            val header = LinkedHashMap<String, JsonValue>()
            header[METADATA] = JsonObject(metadata.mapValues { JsonString(it.value) })
            val data = ByteArrayOutputStream()
            for ((name, tensor) in tensors) {
                val begin = data.size().toLong()
                data.write(littleEndian(tensor))
                val offsets = listOf(begin, data.size().toLong())
                header[name] =
                    jsonObject(
                        "dtype" to JsonString(if (tensor is FloatTensor) "F32" else "I64"),
                        "shape" to JsonArray(tensor.shape.map(::JsonWhole)),
                        "data_offsets" to JsonArray(offsets.map(::JsonWhole)),
                    )
            }
            val text = JsonObject(header).write().toByteArray()
            val padded = text.copyOf((text.size + 7) / 8 * 8)
            padded.fill(' '.code.toByte(), text.size)
            val length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN)
            return length.putLong(padded.size.toLong()).array() + padded + data.toByteArray()
        }
    }
}

private const val METADATA = "__metadata__"

private class Entry(
    val name: String,
    val dtype: String,
    val shape: List<Long>,
    val begin: Long,
    val end: Long,
)

private fun header(file: ByteArray, maxHeaderBytes: Int): Pair<JsonObject, Int> {
    if (file.size < 8) {
        throw PersonaError(
            Code.CONTAINER_TRUNCATED,
            "expected 8 bytes of header length, got ${file.size} bytes",
        )
    }
    val length = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).getLong()
    if (length < 0 || length > maxHeaderBytes) {
        throw PersonaError(
            Code.CONTAINER_HEADER_TOO_LONG,
            "the header says it has ${java.lang.Long.toUnsignedString(length)} bytes; " +
                "at most $maxHeaderBytes are allowed",
        )
    }
    if (8 + length > file.size) {
        throw PersonaError(
            Code.CONTAINER_TRUNCATED,
            "the header wants $length bytes, but ${file.size - 8} follow; fetch the file again",
        )
    }
    val start = 8 + length.toInt()
    if (length == 0L || file[8] != '{'.code.toByte()) {
        invalid("the header must be a JSON object and begin with '{'")
    }
    val value =
        try {
            parseJson(file.copyOfRange(8, start), wholeNumbersOnly = true)
        } catch (e: RepeatedKeyException) {
            throw PersonaError(Code.CONTAINER_DUPLICATE_KEY, "in the header ${e.message}")
        } catch (e: JsonException) {
            invalid("the header is not JSON in UTF-8: ${e.message}")
        }
    return value as JsonObject to start
}

private fun metadata(value: JsonValue): Map<String, String> {
    val members = (value as? JsonObject)?.members
    if (members == null || members.values.any { it !is JsonString }) {
        invalid("$METADATA must map strings to strings")
    }
    return members.mapValues { (it.value as JsonString).value }
}

private fun entry(name: String, value: JsonValue): Entry {
    val fields = (value as? JsonObject)?.members
    if (fields == null || fields.keys != setOf("dtype", "shape", "data_offsets")) {
        invalid("\"$name\" must have exactly dtype, shape and data_offsets")
    }
    val dtype = (fields.getValue("dtype") as? JsonString)?.value
    if (dtype !in DTYPE_BYTES) {
        invalid("dtype of \"$name\" is not one of ${DTYPE_BYTES.keys.joinToString()}")
    }
    val shape = wholeNumbers(name, "shape", fields.getValue("shape"))
    if (shape.size > MAX_DIMENSIONS) {
        invalid("shape of \"$name\" has ${shape.size} dimensions, at most $MAX_DIMENSIONS fit")
    }
    val offsets = wholeNumbers(name, "data_offsets", fields.getValue("data_offsets"))
    if (offsets.size != 2 || offsets[0] > offsets[1]) {
        invalid("data_offsets of \"$name\" must be [begin, end], got ${offsets.take(3)}")
    }
    return Entry(name, dtype!!, shape, offsets[0], offsets[1])
}

private fun wholeNumbers(name: String, field: String, value: JsonValue): List<Long> {
    val elements = (value as? JsonArray)?.elements
    if (elements == null || elements.any { it !is JsonWhole }) {
        invalid("$field of \"$name\" must be a list of whole numbers")
    }
    return elements.map { (it as JsonWhole).value }
}

/** Rules 7 to 10 of the page, each for all tensors before the next. */
private fun checkLayout(entries: List<Entry>, size: Long) {
    for (e in entries) {
        val wanted = bytesOf(e)
        if (wanted != e.end - e.begin) {
            throw PersonaError(
                Code.CONTAINER_SIZE_MISMATCH,
                "\"${e.name}\" of type ${e.dtype} and shape ${e.shape} needs " +
                    "${wanted ?: "too many"} bytes, its data_offsets give ${e.end - e.begin}",
            )
        }
    }
    val sorted = entries.sortedWith(compareBy({ it.begin }, { it.end }))
    for (e in sorted) {
        if (e.end > size) {
            throw PersonaError(
                Code.CONTAINER_OUT_OF_BOUNDS,
                "\"${e.name}\" ends at byte ${e.end} of $size; fetch the file again",
            )
        }
    }
    var position = 0L
    for (e in sorted) {
        if (e.begin < position) {
            throw PersonaError(
                Code.CONTAINER_OVERLAP,
                "\"${e.name}\" begins at ${e.begin}, inside the tensor before it",
            )
        }
        if (e.begin > position) {
            throw PersonaError(
                Code.CONTAINER_HOLE,
                "bytes $position to ${e.begin} belong to no tensor",
            )
        }
        position = e.end
    }
    if (position != size) {
        throw PersonaError(
            Code.CONTAINER_TRAILING_BYTES,
            "${size - position} bytes follow the last tensor",
        )
    }
}

/** Bytes of a tensor, or null where the sizes that are not 0 multiply beyond [MAX_WHOLE]. */
private fun bytesOf(entry: Entry): Long? {
    var product = DTYPE_BYTES.getValue(entry.dtype)
    for (size in entry.shape) {
        if (size == 0L) continue
        if (product > MAX_WHOLE / size) return null
        product *= size
    }
    return if (0L in entry.shape) 0 else product
}

private fun invalid(message: String): Nothing =
    throw PersonaError(Code.CONTAINER_HEADER_INVALID, message)

/** The bytes of a tensor: row by row, little-endian. */
internal fun littleEndian(tensor: PortValue): ByteArray =
    when (tensor) {
        is FloatTensor -> {
            val out = ByteBuffer.allocate(4 * tensor.values.size).order(ByteOrder.LITTLE_ENDIAN)
            out.asFloatBuffer().put(tensor.values)
            out.array()
        }
        is LongTensor -> {
            val out = ByteBuffer.allocate(8 * tensor.values.size).order(ByteOrder.LITTLE_ENDIAN)
            out.asLongBuffer().put(tensor.values)
            out.array()
        }
    }
