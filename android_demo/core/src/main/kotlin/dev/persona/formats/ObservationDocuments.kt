package dev.persona.formats

/** The `format` of an observation, and the media type of its safetensors form. */
const val OBSERVATION_FORMAT = "persona.observation/1"
const val OBSERVATION_MEDIA_TYPE = "application/vnd.persona.observation+safetensors"

private val STATISTICS = listOf("mean", "deviation", "class_mass", "class_prior", "class_mean")

/** The safetensors form, for phones. */
fun Envelope.toSafetensors(): ByteArray {
    val head = mapOf("format" to OBSERVATION_FORMAT, "bundle" to bundle)
    return when (observation) {
        is ItemsObservation -> {
            val items = LongTensor(listOf(observation.items.size.toLong()), observation.items)
            Container.encode(mapOf("items" to items), head + ("kind" to "items"))
        }
        is PooledObservation -> {
            val metadata = head + ("kind" to "pooled") + ("count" to "${observation.count}")
            Container.encode(observation.statistics, metadata)
        }
    }
}

/** The JSON form, for people. */
fun Envelope.toJson(): JsonObject {
    val head = arrayOf("format" to JsonString(OBSERVATION_FORMAT), "bundle" to JsonString(bundle))
    return when (observation) {
        is ItemsObservation ->
            jsonObject(
                *head,
                "kind" to JsonString("items"),
                "items" to JsonArray(observation.items.map(::JsonWhole)),
            )
        is PooledObservation ->
            jsonObject(
                *head,
                "kind" to JsonString("pooled"),
                "count" to JsonWhole(observation.count),
                *observation.statistics.map { (n, tensor) -> n to numbers(tensor) }.toTypedArray(),
            )
    }
}

private fun numbers(tensor: FloatTensor): JsonArray {
    val numbers = tensor.values.map { JsonReal(it.toDouble()) }
    if (tensor.shape.size == 1) return JsonArray(numbers)
    return JsonArray(numbers.chunked(tensor.shape[1].toInt()).map(::JsonArray))
}

/** Reads and checks the JSON form. Throws [PersonaError]. */
fun parseObservation(spec: ObservationSpec, utf8: ByteArray): Envelope {
    val document =
        try {
            readDocument(parseJson(utf8))
        } catch (e: JsonException) {
            refuse("not JSON: ${e.message}")
        } catch (e: SchemaException) {
            refuse("${e.message}")
        }
    val observation = document.observation()
    checkFormat(document.format)
    checkObservation(spec, observation)
    return Envelope(document.bundle, observation)
}

private class Document(val format: String, val bundle: String, val observation: () -> Observation)

/** The fields alone; what they say is looked at when the observation is made of them. */
private fun readDocument(value: JsonValue): Document =
    value.fields("observation") {
        val items = choice("kind", mapOf("items" to true, "pooled" to false))
        val format = string("format")
        val bundle = string("bundle")
        if (items) {
            val ids = list("items", JsonValue::asWhole).toLongArray()
            Document(format, bundle) { ItemsObservation(ids) }
        } else {
            val count = whole("count")
            val lists = STATISTICS.dropLast(1).map { list(it, JsonValue::asReal) }
            val rows = list(STATISTICS.last()) { row, path -> row.asList(path, JsonValue::asReal) }
            Document(format, bundle) {
                val (mean, deviation, mass, prior) = lists.map(::vector)
                PooledObservation(count, mean, deviation, mass, prior, matrix(rows))
            }
        }
    }

private fun vector(values: List<Double>) =
    FloatTensor(listOf(values.size.toLong()), FloatArray(values.size) { values[it].toFloat() })

private fun matrix(rows: List<List<Double>>): FloatTensor {
    val widths = rows.map { it.size.toLong() }.distinct()
    if (widths.size > 1) {
        throw PersonaError(
            Code.OBSERVATION_WIDTH,
            "the rows of class_mean must be equally long, got rows of ${widths.joinToString()}",
        )
    }
    return FloatTensor(listOf(rows.size.toLong()) + widths, vector(rows.flatten()).values)
}

/** Reads and checks the safetensors form. Throws [PersonaError]. */
fun readObservation(spec: ObservationSpec, file: ByteArray): Envelope {
    val container = Container.decode(file)
    val metadata = container.metadata
    checkFormat(metadata["format"])
    val observation =
        when (metadata["kind"]) {
            "items" -> {
                checkMembers(container, listOf("items"), setOf("format", "bundle", "kind"))
                items(container.tensors.getValue("items"))
            }
            "pooled" -> {
                checkMembers(container, STATISTICS, setOf("format", "bundle", "kind", "count"))
                pooled(container)
            }
            else -> refuse("kind must be items or pooled, got \"${metadata["kind"] ?: "none"}\"")
        }
    checkObservation(spec, observation)
    return Envelope(metadata.getValue("bundle"), observation)
}

private fun checkMembers(container: Container, tensors: List<String>, metadata: Set<String>) {
    if (container.tensors.keys != tensors.toSet() || container.metadata.keys != metadata) {
        refuse(
            "expected the tensors ${tensors.joinToString()} and metadata " +
                "${metadata.joinToString()}, got ${container.tensors.keys} and ${container.metadata.keys}"
        )
    }
}

private fun items(stored: StoredTensor): ItemsObservation {
    checkType("items", stored, "I64")
    if (stored.shape.size != 1) refuse("items must be a list, got shape ${stored.shape}")
    return ItemsObservation(stored.longs().values)
}

private fun pooled(container: Container): PooledObservation {
    val text = container.metadata.getValue("count")
    val count = parseWhole(text) ?: refuse("count \"$text\" is not a whole number up to $MAX_WHOLE")
    val (mean, deviation, mass, prior, classMean) =
        STATISTICS.map { name ->
            val stored = container.tensors.getValue(name)
            checkType(name, stored, "F32")
            stored.floats()
        }
    return PooledObservation(count, mean, deviation, mass, prior, classMean)
}

private fun checkType(name: String, stored: StoredTensor, dtype: String) {
    if (stored.dtype != dtype) refuse("$name must be $dtype, got ${stored.dtype}")
}

private fun checkFormat(format: String?) {
    if (format != OBSERVATION_FORMAT) {
        refuse("expected format \"$OBSERVATION_FORMAT\", got \"${format ?: "none"}\"")
    }
}

private fun refuse(message: String): Nothing = throw PersonaError(Code.OBSERVATION_INVALID, message)
