package dev.persona.formats

import kotlin.math.max
import kotlin.math.min

/** How many deviations from the mean of the training devices still count. */
private const val CLAMP = 6.0

/**
 * Each prototype's change, and the linear rule by which a device chooses one without a cloud.
 *
 * @property changes for each prototype `SLOT.SUFFIX` -> values, as in an edit
 * @property mean [width] of the training devices' observation vectors, as is [deviation]
 * @property weight [count, width] of each prototype's score, with [bias] [count]
 */
class Prototypes(
    val changes: List<SlotTensors>,
    val mean: FloatArray,
    val deviation: FloatArray,
    val weight: FloatArray,
    val bias: FloatArray,
) {
    /**
     * The score of each prototype for an observation vector [width], in binary64:
     * `weight · clamp((v − mean) ÷ deviation, ±6) + bias`.
     */
    fun scores(vector: FloatArray): DoubleArray {
        require(vector.size == mean.size) {
            "expected an observation vector of ${mean.size} numbers, got ${vector.size}"
        }
        val standard =
            DoubleArray(mean.size) {
                max(-CLAMP, min(CLAMP, (vector[it].toDouble() - mean[it]) / deviation[it]))
            }
        return DoubleArray(changes.size) { k ->
            var sum = 0.0
            for (j in standard.indices) sum += weight[k * standard.size + j] * standard[j]
            sum + bias[k]
        }
    }

    /** The prototype for an observation vector [width]: the lowest of those that score highest. */
    fun assign(vector: FloatArray): Int {
        check(changes.isNotEmpty()) { "the bundle has no prototypes; use the base" }
        val scores = scores(vector)
        return scores.indices.reduce { best, k -> if (scores[k] > scores[best]) k else best }
    }
}

/**
 * Inputs with the outputs that a program must give for them.
 *
 * @property inputs for each golden input, port name -> value
 * @property base outputs without a change
 * @property prototypes for each prototype, its outputs
 * @property edit an example edit, relative to no prototype
 * @property edited its outputs
 * @property features [1, features] of each input, where the observation is pooled; else empty
 * @property posterior [1, classes] of each input, where the observation is pooled; else empty
 */
class Golden(
    val inputs: List<Map<String, PortValue>>,
    val base: List<FloatTensor>,
    val prototypes: List<List<FloatTensor>>,
    val edit: SlotTensors,
    val edited: List<FloatTensor>,
    val features: List<FloatTensor>,
    val posterior: List<FloatTensor>,
)

/** Reads `base.safetensors`: what a program's slots hold before any edit. */
fun decodeBase(slots: List<SlotSpec>, data: ByteArray): SlotTensors {
    val file = TensorFile("base", "persona.base/1", data)
    val shapes = slots.feedTensors()
    file.checkNames(shapes.keys)
    return shapes.mapValues { (name, shape) -> file.floats(name, shape) }
}

/**
 * Reads `prototypes.safetensors` of a bundle with [count] prototypes and observation vectors
 * [[width]]. A prototype obeys the slots' bounds as an edit does.
 */
fun decodePrototypes(slots: List<SlotSpec>, count: Long, width: Long, data: ByteArray): Prototypes {
    val file = TensorFile("prototypes", "persona.prototypes/1", data)
    if (count == 0L) {
        file.checkNames(emptySet())
        val none = FloatArray(0)
        return Prototypes(emptyList(), none, none, none, none)
    }
    val shapes = slots.editTensors()
    val rule = listOf("mean", "deviation", "weight", "bias").map { "assign.$it" }
    val wanted = file.prototypeNames(count, shapes.keys) + rule
    file.checkNames(wanted)
    val limits = slots.limits()
    val changes =
        List(count.toInt()) { k ->
            shapes.mapValues { (name, shape) ->
                file.changes("$k.$name", shape).also {
                    if (it.largest() > limits.getValue(name)) {
                        file.refuse("\"$k.$name\" reaches ${it.largest()}, above ${limits[name]}")
                    }
                }
            }
        }
    val shapeOf = listOf(listOf(width), listOf(width), listOf(count, width), listOf(count))
    val (mean, deviation, weight, bias) = rule.zip(shapeOf) { n, s -> file.floats(n, s).values }
    if (deviation.any { it <= 0f }) file.refuse("\"assign.deviation\" must be above 0 everywhere")
    return Prototypes(changes, mean, deviation, weight, bias)
}

/**
 * Reads `golden.safetensors` of a bundle with [count] prototypes, programs with these [inputs] and
 * this first [output], and this [observation].
 */
fun decodeGolden(
    slots: List<SlotSpec>,
    count: Long,
    inputs: List<Port>,
    output: Port,
    observation: ObservationSpec,
    data: ByteArray,
): Golden {
    val file = TensorFile("golden", "persona.golden/1", data)
    val number = generateSequence(0, Int::inc).takeWhile { "base.$it" in file.names }.count()
    if (number == 0) file.refuse("expected one golden input or more, there is no tensor \"base.0\"")
    val observed =
        when (observation) {
            is ItemsSpec -> emptyMap()
            is PooledSpec ->
                mapOf(
                    "features" to listOf(1L, observation.features),
                    "posterior" to listOf(1L, observation.classes),
                )
        }
    val changes = slots.editTensors().mapKeys { "edit.${it.key}" }
    val prototypes = file.prototypeOutputs(count)
    val computed = listOf("base") + prototypes + "edited" + observed.keys
    val wanted = HashSet(changes.keys)
    for (i in 0 until number) {
        inputs.mapTo(wanted) { "input.$i.${it.name}" }
        computed.mapTo(wanted) { "$it.$i" }
    }
    file.checkNames(wanted)

    val sizes = List(number) { HashMap<String, Long>() }
    val given =
        sizes.mapIndexed { i, free ->
            inputs.associate { it.name to file.port(it, "input.$i.${it.name}", free) }
        }
    fun outputs(name: String) =
        sizes.mapIndexed { i, free -> file.port(output, "$name.$i", free) as FloatTensor }
    fun observed(name: String) =
        observed[name]?.let { shape -> List(number) { file.floats("$name.$it", shape) } }
            ?: emptyList()
    if (output.type != PortType.FLOAT32) file.refuse("the first output must be float32")
    return Golden(
        inputs = given,
        base = outputs("base"),
        prototypes = prototypes.map(::outputs),
        edit =
            changes.entries.associate { (name, shape) ->
                name.removePrefix("edit.") to file.changes(name, shape)
            },
        edited = outputs("edited"),
        features = observed("features"),
        posterior = observed("posterior"),
    )
}

/** One of the three files: a container with its `format` alone, and faults that name it. */
private class TensorFile(private val name: String, format: String, data: ByteArray) {
    private val container = Container.decode(data, MAX_BUNDLE_HEADER_BYTES)

    val names: Set<String>
        get() = container.tensors.keys

    init {
        if (container.metadata != mapOf("format" to format)) {
            refuse("expected the metadata format = \"$format\" alone, got ${container.metadata}")
        }
    }

    fun refuse(message: String): Nothing =
        throw PersonaError(
            Code.BUNDLE_TENSORS,
            "$name.safetensors: $message; export the bundle again",
        )

    fun checkNames(wanted: Set<String>) {
        (wanted - names).firstOrNull()?.let { refuse("there is no tensor \"$it\"") }
        (names - wanted).firstOrNull()?.let { refuse("tensor \"$it\" is not one of this bundle's") }
    }

    /** `K.SLOT.SUFFIX` of all prototypes; a count beyond what the file holds ends at the first. */
    fun prototypeNames(count: Long, slotTensors: Set<String>): Set<String> =
        namesOf(count) { k -> slotTensors.map { "$k.$it" } }

    fun prototypeOutputs(count: Long): List<String> =
        namesOf(count) { k -> listOf("prototype.$k.0") }.map { it.removeSuffix(".0") }

    private fun namesOf(count: Long, of: (Long) -> List<String>): Set<String> {
        val all = LinkedHashSet<String>()
        for (k in 0 until count) {
            all += of(k)
            if (all.last() !in names) refuse("there is no tensor \"${all.last()}\"")
        }
        return all
    }

    fun floats(tensor: String, shape: List<Long>): FloatTensor = floats(tensor, shape, setOf("F32"))

    /** A tensor as an edit has it: F16 or F32. */
    fun changes(tensor: String, shape: List<Long>): FloatTensor =
        floats(tensor, shape, setOf("F32", "F16"))

    private fun floats(tensor: String, shape: List<Long>, dtypes: Set<String>): FloatTensor {
        val stored = container.tensors.getValue(tensor)
        if (stored.dtype !in dtypes) {
            refuse("\"$tensor\" must be ${dtypes.joinToString(" or ")}, got ${stored.dtype}")
        }
        if (stored.shape != shape) {
            refuse("\"$tensor\" must have shape $shape, got ${stored.shape}")
        }
        val values = stored.floats()
        if (!values.isFinite()) refuse("\"$tensor\" holds NaN or infinity")
        return values
    }

    /** The value of a port; [free] keeps the sizes of dimensions that the caller chooses. */
    fun port(port: Port, tensor: String, free: MutableMap<String, Long>): PortValue {
        val stored = container.tensors.getValue(tensor)
        val dtype = if (port.type == PortType.INT64) "I64" else "F32"
        if (stored.dtype != dtype) refuse("\"$tensor\" must be $dtype, got ${stored.dtype}")
        val limits = port.free.iterator()
        val fits =
            stored.shape.size == port.shape.size &&
                port.shape.zip(stored.shape).all { (wanted, size) ->
                    if (wanted != -1L) {
                        wanted == size
                    } else {
                        val dimension = limits.next()
                        size in dimension.min..dimension.max &&
                            free.getOrPut(dimension.name) { size } == size
                    }
                }
        if (!fits) refuse("\"$tensor\" must have shape ${port.shape}, got ${stored.shape}")
        return if (dtype == "I64") stored.longs() else floats(tensor, stored.shape)
    }
}
