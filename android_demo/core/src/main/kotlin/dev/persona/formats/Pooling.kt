package dev.persona.formats

import kotlin.math.max
import kotlin.math.sqrt

private const val EM_STEPS = 50
private const val EM_FLOOR = 1e-4
private const val MASS_FLOOR = 1e-6

/**
 * Pools a window's [features] [n, F] and class posteriors [posterior] [n, C] into statistics: in
 * binary64, rounded to binary32 at the end (`docs/edit-format.md`, "Pooling").
 *
 * @throws PersonaError `observation.*`
 */
fun pool(spec: PooledSpec, features: FloatTensor, posterior: FloatTensor): PooledObservation {
    val count = features.shape.firstOrNull() ?: 0
    checkCount(spec, count)
    checkWindow(spec, count, features, posterior)
    val n = count.toInt()
    val x = Matrix(n, spec.features.toInt(), features.values)
    val p = Matrix(n, spec.classes.toInt(), posterior.values)
    val mean = DoubleArray(x.columns) { f -> x.sumOver { i -> x[i, f] } / n }
    val deviation =
        DoubleArray(x.columns) { f ->
            sqrt(x.sumOver { i -> (x[i, f] - mean[f]) * (x[i, f] - mean[f]) } / n)
        }
    val mass = DoubleArray(p.columns) { c -> p.sumOver { i -> p[i, c] } }
    val classMean =
        DoubleArray(p.columns * x.columns) {
            val (c, f) = it / x.columns to it % x.columns
            p.sumOver { i -> p[i, c] * x[i, f] } / (mass[c] + MASS_FLOOR)
        }
    val pooled =
        PooledObservation(
            count = count,
            mean = tensor(mean, spec.features),
            deviation = tensor(deviation, spec.features),
            classMass = tensor(DoubleArray(mass.size) { mass[it] / n }, spec.classes),
            classPrior = tensor(classPrior(p, spec.trainingMass), spec.classes),
            classMean = tensor(classMean, spec.classes, spec.features),
        )
    checkObservation(spec, pooled)
    return pooled
}

/**
 * The class mix of a window by expectation maximisation from posteriors of a model that was trained
 * with other frequencies τ (Saerens, Latinne and Decaestecker, 2002).
 */
private fun classPrior(p: Matrix, trained: List<Double>): DoubleArray {
    var prior = trained.toDoubleArray()
    repeat(EM_STEPS) {
        val sums = DoubleArray(p.columns)
        for (i in 0 until p.rows) {
            val q = DoubleArray(p.columns) { c -> p[i, c] * (prior[c] / trained[c]) }
            val total = q.sum()
            for (c in q.indices) sums[c] += q[c] / total
        }
        val raised = DoubleArray(p.columns) { c -> max(sums[c] / p.rows, EM_FLOOR) }
        val total = raised.sum()
        prior = DoubleArray(p.columns) { c -> raised[c] / total }
    }
    return prior
}

private fun checkWindow(
    spec: PooledSpec,
    count: Long,
    features: FloatTensor,
    posterior: FloatTensor,
) {
    val wanted = listOf(listOf(count, spec.features), listOf(count, spec.classes))
    if (listOf(features.shape, posterior.shape) != wanted) {
        throw PersonaError(
            Code.OBSERVATION_WIDTH,
            "features and posterior must have shapes ${wanted[0]} and ${wanted[1]}, got " +
                "${features.shape} and ${posterior.shape}; are they from this bundle's program?",
        )
    }
    for ((name, tensor) in listOf("features" to features, "posterior" to posterior)) {
        if (!tensor.isFinite()) {
            throw PersonaError(
                Code.OBSERVATION_NOT_FINITE,
                "$name hold NaN or infinity; check the inputs",
            )
        }
    }
    val rows = posterior.values.toList().chunked(spec.classes.toInt())
    if (rows.any { row -> row.any { it < 0f } || row.none { it > 0f } }) {
        throw PersonaError(
            Code.OBSERVATION_INVALID,
            "each sample's posterior must be 0 or more, and above 0 for a class; apply softmax",
        )
    }
}

private fun tensor(values: DoubleArray, vararg shape: Long) =
    FloatTensor(shape.toList(), FloatArray(values.size) { values[it].toFloat() })

/** binary32 values read as binary64, row by row. */
private class Matrix(val rows: Int, val columns: Int, private val values: FloatArray) {
    operator fun get(row: Int, column: Int): Double = values[row * columns + column].toDouble()

    inline fun sumOver(term: (Int) -> Double): Double {
        var sum = 0.0
        for (row in 0 until rows) sum += term(row)
        return sum
    }
}
