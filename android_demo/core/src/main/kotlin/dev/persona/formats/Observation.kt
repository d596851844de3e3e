package dev.persona.formats

/** What the bundle asks a device to tell of its window; `docs/edit-format.md`, "Observation". */
sealed interface ObservationSpec {
    val minCount: Long
    val maxCount: Long

    /** Length of the observation as one vector. */
    val width: Long
}

/**
 * Ids of the last items, oldest first, each from 1 to [vocabulary].
 */
data class ItemsSpec(
    val vocabulary: Long,
    override val minCount: Long,
    override val maxCount: Long,
) : ObservationSpec {
    override val width: Long
        get() = vocabulary + 1
}

/**
 * Statistics over samples: [features] values a sample, [classes] in its posterior.
 *
 * @property trainingMass class frequencies that the backbone was trained with, [classes]
 */
data class PooledSpec(
    val features: Long,
    val classes: Long,
    override val minCount: Long,
    override val maxCount: Long,
    val trainingMass: List<Double>,
) : ObservationSpec {
    override val width: Long
        get() = 2 * features + 2 * classes + classes * features
}

/** What a device tells of its window. Raw samples never leave it. */
sealed interface Observation {
    /** What linear rules on the device take: [ObservationSpec.width] numbers. */
    fun vector(spec: ObservationSpec): FloatArray
}

/** Item ids, oldest first. */
class ItemsObservation(val items: LongArray) : Observation {
    /** Element v is the share of item v in the window. */
    override fun vector(spec: ObservationSpec): FloatArray {
        val counts = FloatArray(spec.width.toInt())
        for (item in items) counts[item.toInt()]++
        return FloatArray(counts.size) { counts[it] / items.size.toFloat() }
    }
}

/**
 * Pooled statistics of [count] samples.
 *
 * @property mean [features] over the window, as is [deviation]
 * @property classMass [classes], the mean posterior
 * @property classPrior [classes], the class mix, estimated by expectation maximisation
 * @property classMean [classes, features], means weighted by the posterior
 */
class PooledObservation(
    val count: Long,
    val mean: FloatTensor,
    val deviation: FloatTensor,
    val classMass: FloatTensor,
    val classPrior: FloatTensor,
    val classMean: FloatTensor,
) : Observation {
    /** All statistics, in the order of the fields. */
    override fun vector(spec: ObservationSpec): FloatArray =
        statistics.values.map { it.values }.reduce(FloatArray::plus)

    /** Name in the two forms -> values, in the contract's order. */
    internal val statistics: Map<String, FloatTensor>
        get() =
            mapOf(
                "mean" to mean,
                "deviation" to deviation,
                "class_mass" to classMass,
                "class_prior" to classPrior,
                "class_mean" to classMean,
            )
}

/** An observation with its addressee: the bundle (sha256 of the manifest) it was made with. */
class Envelope(val bundle: String, val observation: Observation)

/** Whether an observation is what the bundle asks for. Throws [PersonaError] `observation.*`. */
fun checkObservation(spec: ObservationSpec, observation: Observation) {
    when (spec) {
        is ItemsSpec -> {
            if (observation !is ItemsObservation) refuse("expected item ids, got pooled statistics")
            checkCount(spec, observation.items.size.toLong())
            observation.items
                .firstOrNull { it !in 1..spec.vocabulary }
                ?.let { refuse("item ids must be 1 to ${spec.vocabulary}, got $it") }
        }
        is PooledSpec -> {
            if (observation !is PooledObservation) refuse("expected statistics, got item ids")
            checkCount(spec, observation.count)
            checkStatistics(spec, observation)
        }
    }
}

private fun checkStatistics(spec: PooledSpec, observation: PooledObservation) {
    val shapes =
        listOf(
            listOf(spec.features),
            listOf(spec.features),
            listOf(spec.classes),
            listOf(spec.classes),
            listOf(spec.classes, spec.features),
        )
    for ((statistic, shape) in observation.statistics.entries.zip(shapes)) {
        val (name, values) = statistic
        if (values.shape != shape) {
            throw PersonaError(
                Code.OBSERVATION_WIDTH,
                "$name must have shape $shape, got ${values.shape}; " +
                    "is it made with this bundle's observe program?",
            )
        }
        if (!values.isFinite()) {
            throw PersonaError(
                Code.OBSERVATION_NOT_FINITE,
                "$name holds NaN or infinity; check the inputs",
            )
        }
    }
}

internal fun checkCount(spec: ObservationSpec, count: Long) {
    if (count < spec.minCount) {
        throw PersonaError(
            Code.OBSERVATION_EMPTY,
            "the window has $count samples, at least ${spec.minCount} are needed",
        )
    }
    if (count > spec.maxCount) {
        throw PersonaError(
            Code.OBSERVATION_TOO_LONG,
            "the window has $count samples, at most ${spec.maxCount} fit; send the newest",
        )
    }
}

private fun refuse(message: String): Nothing = throw PersonaError(Code.OBSERVATION_INVALID, message)

/** Reads a manifest's `observation`. Throws [SchemaException]. */
internal fun readObservationSpec(value: JsonValue, path: String): ObservationSpec {
    val spec =
        value.fields(path) {
            val read = mapOf("items" to ::readItemsSpec, "pooled" to ::readPooledSpec)
            choice("kind", read)(this)
        }
    fun rule(holds: Boolean, message: String) {
        if (!holds) throw SchemaException("$path: $message")
    }
    rule(spec.minCount in 1..spec.maxCount, "expected 1 <= min_count <= max_count")
    when (spec) {
        is ItemsSpec -> rule(spec.vocabulary >= 1, "vocabulary must be 1 or more")
        is PooledSpec -> {
            rule(spec.features >= 1 && spec.classes >= 1, "features and classes must be 1 or more")
            rule(
                spec.trainingMass.size.toLong() == spec.classes && spec.trainingMass.all { it > 0 },
                "training_mass must be ${spec.classes} numbers above 0",
            )
        }
    }
    return spec
}

private fun readItemsSpec(fields: JsonFields): ObservationSpec =
    with(fields) { ItemsSpec(whole("vocabulary"), whole("min_count"), whole("max_count")) }

private fun readPooledSpec(fields: JsonFields): ObservationSpec =
    with(fields) {
        PooledSpec(
            features = whole("features"),
            classes = whole("classes"),
            minCount = whole("min_count"),
            maxCount = whole("max_count"),
            trainingMass = list("training_mass", JsonValue::asReal),
        )
    }
