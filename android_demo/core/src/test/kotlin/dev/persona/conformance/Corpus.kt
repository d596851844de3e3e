package dev.persona.conformance

import dev.persona.formats.Container
import dev.persona.formats.Expectation
import dev.persona.formats.JsonArray
import dev.persona.formats.JsonBoolean
import dev.persona.formats.JsonObject
import dev.persona.formats.JsonReal
import dev.persona.formats.JsonString
import dev.persona.formats.JsonValue
import dev.persona.formats.JsonWhole
import dev.persona.formats.MAX_BUNDLE_HEADER_BYTES
import dev.persona.formats.PersonaError
import dev.persona.formats.PublicKeys
import dev.persona.formats.SlotSpec
import dev.persona.formats.StoredTensor
import dev.persona.formats.asList
import dev.persona.formats.parseJson
import dev.persona.formats.readSlot
import java.io.File
import java.util.Base64

/** The files of `tests/conformance`, which all languages read. */
object Corpus {
    private val folder =
        File(
            checkNotNull(System.getProperty("persona.conformance")) {
                "run with -Dpersona.conformance=FOLDER, the repository's tests/conformance"
            }
        )

    val edits = json("cases.json").list()
    val expectations = json("expectations.json") as JsonObject
    val observations = json("observations/cases.json").list()
    val specs = json("observations/specs.json") as JsonObject
    val bundles = json("bundles/cases.json") as JsonObject
    val probes = json("probes/cases.json").list()
    val keyDocuments = json("keys/cases.json").list()
    val drifts = json("drift/cases.json").list()
    val driftSpecs = json("drift/specs.json") as JsonObject

    fun file(path: String) = File(folder, path)

    fun bytes(path: String): ByteArray = file(path).readBytes()

    fun json(path: String): JsonValue = parseJson(bytes(path))

    fun tensors(path: String): Map<String, StoredTensor> =
        Container.decode(bytes(path), MAX_BUNDLE_HEADER_BYTES).tensors

    /** The keys that may sign edits or bundles. */
    fun keys(of: String): PublicKeys =
        PublicKeys(
            (json("keys.json") as JsonObject).getValue(of).list().map {
                Base64.getDecoder().decode(it.text("public_key"))
            }
        )

    fun slots(expectation: String): List<SlotSpec> =
        expectations.getValue(expectation).obj().getValue("slots").asList("slots", ::readSlot)

    fun expectation(name: String): Expectation {
        val known = expectations.getValue(name).obj()
        return Expectation(
            model = known.text("model"),
            bundle = known.text("bundle"),
            device = known.text("device"),
            sequence = known.whole("sequence"),
            slots = slots(name),
            prototypes = known.whole("prototype_count"),
            probeShape = known.getValue("probe_shape").list { it as JsonWhole }.map { it.value },
            maxBytes = known.whole("max_bytes"),
        )
    }
}

/** `ok`, or the code with which [action] refuses. */
fun verdict(action: () -> Unit): String =
    try {
        action()
        "ok"
    } catch (e: PersonaError) {
        e.code.text
    }

fun JsonValue.obj() = this as JsonObject

fun JsonValue.list(): List<JsonObject> = list { it as JsonObject }

fun <T> JsonValue.list(element: (JsonValue) -> T): List<T> = (this as JsonArray).elements.map(element)

fun JsonObject.getValue(name: String): JsonValue = members.getValue(name)

fun JsonObject.text(name: String): String = (getValue(name) as JsonString).value

fun JsonObject.whole(name: String): Long = (getValue(name) as JsonWhole).value

fun JsonObject.flag(name: String): Boolean = (getValue(name) as JsonBoolean).value

fun JsonObject.real(name: String): Double =
    when (val value = getValue(name)) {
        is JsonWhole -> value.value.toDouble()
        else -> (value as JsonReal).value
    }
