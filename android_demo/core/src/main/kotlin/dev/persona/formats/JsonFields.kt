package dev.persona.formats

/**
 * The members of one JSON object, read strictly: each is of the type asked for, and none is left
 * over. Faults are [SchemaException]s that name the path, such as `manifest.slots[0].rank`.
 */
class JsonFields(value: JsonValue, private val path: String) {
    private val members =
        (value as? JsonObject)?.members
            ?: throw SchemaException("$path: expected an object, got ${kind(value)}")
    private val read = HashSet<String>()

    /** Whether the object has a member of this name. */
    operator fun contains(name: String): Boolean = name in members

    fun string(name: String): String = get(name).asString("$path.$name")

    fun boolean(name: String): Boolean =
        (get(name) as? JsonBoolean)?.value ?: mismatch(name, "true or false")

    fun whole(name: String): Long = get(name).asWhole("$path.$name")

    fun real(name: String): Double = get(name).asReal("$path.$name")

    fun obj(name: String): JsonObject = get(name) as? JsonObject ?: mismatch(name, "an object")

    fun <T> list(name: String, element: (JsonValue, String) -> T): List<T> =
        get(name).asList("$path.$name", element)

    fun <T> map(name: String, element: (JsonValue, String) -> T): Map<String, T> =
        obj(name).members.mapValues { (key, value) -> element(value, "$path.$name.$key") }

    /** The member read by [element], or null where it is `null`. */
    fun <T> nullable(name: String, element: (JsonValue, String) -> T): T? =
        get(name).let { if (it is JsonNull) null else element(it, "$path.$name") }

    /** One of [choices] by its spelling. */
    fun <T> choice(name: String, choices: Map<String, T>): T {
        val spelled = (get(name) as? JsonString)?.value
        return choices[spelled] ?: mismatch(name, "one of ${choices.keys.joinToString()}")
    }

    /** The member itself, counted as read. */
    fun get(name: String): JsonValue {
        read += name
        return members[name] ?: throw SchemaException("$path.$name: missing")
    }

    /** Refuses members that nobody has read. */
    fun finish() {
        val unknown = members.keys.firstOrNull { it !in read } ?: return
        throw SchemaException("$path.$unknown: unknown field; there are ${read.joinToString()}")
    }

    private fun mismatch(name: String, expected: String): Nothing =
        throw SchemaException(
            "$path.$name: expected $expected, got ${kind(members.getValue(name))}"
        )
}

/** A document that does not fit its schema; the message names the field. */
class SchemaException(message: String) : Exception(message)

/** Reads an object with [body] and refuses members that it did not read. */
fun <T> JsonValue.fields(path: String, body: JsonFields.() -> T): T {
    val fields = JsonFields(this, path)
    return fields.body().also { fields.finish() }
}

fun JsonValue.asString(path: String): String =
    (this as? JsonString)?.value
        ?: throw SchemaException("$path: expected a string, got ${kind(this)}")

fun JsonValue.asWhole(path: String): Long =
    (this as? JsonWhole)?.value
        ?: throw SchemaException("$path: expected a whole number, got ${kind(this)}")

fun JsonValue.asReal(path: String): Double =
    when (this) {
        is JsonReal -> value
        is JsonWhole -> value.toDouble()
        else -> throw SchemaException("$path: expected a number, got ${kind(this)}")
    }

fun <T> JsonValue.asList(path: String, element: (JsonValue, String) -> T): List<T> {
    val elements =
        (this as? JsonArray)?.elements
            ?: throw SchemaException("$path: expected a list, got ${kind(this)}")
    return elements.mapIndexed { i, value -> element(value, "$path[$i]") }
}

/** A value in a message: its type, and where it is short, itself. */
private fun kind(value: JsonValue): String =
    when (value) {
        is JsonNull -> "null"
        is JsonArray -> "a list"
        is JsonObject -> "an object"
        is JsonBoolean -> "${value.value}"
        is JsonWhole -> "${value.value}"
        is JsonReal -> "${value.value}"
        is JsonString -> "the string \"${value.value.take(40)}\""
    }
