package dev.persona.demo.session

import java.io.File
import java.util.concurrent.Executor

/**
 * A measurement without hands: fetches or opens a bundle, gets an edit where there is a cloud, times
 * the first program that runs, writes the result to a file and sends it.
 */
class Benchmark(
    private val phone: Phone,
    private val bundle: File?,
    private val endpoint: String,
    private val iterations: Int,
    private val warmUp: Int,
) {
    /** What came of it: a report, or the reason why there is none. */
    class Result(val file: File, val failed: Boolean)

    /** Runs to the end on this thread. */
    fun run(): Result {
        val results = File(phone.files, "benchmark_results.json")
        val errors = File(phone.files, "benchmark_error.txt")
        results.delete()
        errors.delete()
        val session = Session(phone, Executor { it.run() }, {}, remembers = false)
        when {
            bundle != null -> session.run(bundle, endpoint)
            endpoint.isNotEmpty() -> session.connect(endpoint)
            else -> session.perform(Action.UseShippedBundle)
        }
        val opened = session.snapshot.bundle as? BundleState.Open
        if (opened != null) {
            session.personaliseOnGolden()
            session.measure(MeasurePlan(iterations = iterations, warmUp = warmUp, coolDownSeconds = 0))
            if (endpoint.isNotEmpty()) session.perform(Action.Upload)
        }
        val report = session.report()
        return if (report != null && measured(session)) {
            results.writeText(report)
            Result(results, failed = false)
        } else {
            errors.writeText(why(session.snapshot))
            Result(errors, failed = true)
        }
    }

    private fun measured(session: Session) =
        (session.snapshot.measuring as? MeasuringState.Done)?.runs.orEmpty().isNotEmpty()

    private fun why(snapshot: Snapshot): String {
        val cloud = snapshot.cloud
        val bundle = snapshot.bundle
        val measuring = snapshot.measuring
        return when {
            snapshot.refused != null -> "the endpoint is refused: ${snapshot.refused}"
            bundle is BundleState.Refused -> listOfNotNull(bundle.code, bundle.why).joinToString(": ")
            cloud is CloudContact.Offline -> cloud.why
            measuring is MeasuringState.Done -> measuring.failed.joinToString { it.why }
            else -> "there is no bundle: pass model_dir or endpoint, or build one into the app"
        }
    }

    companion object {
        const val ITERATIONS = 200
        const val WARM_UP = 50
    }
}
