package dev.persona.conformance

import dev.persona.device.AskReason
import dev.persona.device.Gate
import dev.persona.device.GateDecision
import dev.persona.formats.EditInfo
import dev.persona.formats.JsonNull
import dev.persona.formats.JsonObject
import dev.persona.formats.JsonString
import dev.persona.formats.Observation
import dev.persona.formats.ObservationSpec
import dev.persona.formats.parseObservation
import dev.persona.formats.parseTime
import dev.persona.formats.readObservationSpec
import java.time.Instant
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory

class DriftConformanceTest {
    private fun JsonObject.time(name: String): Instant = checkNotNull(parseTime(text(name)))

    private fun window(case: JsonObject, spec: ObservationSpec, name: String): Observation? =
        (case.getValue(name) as? JsonString)?.let {
            parseObservation(spec, Corpus.bytes(it.value)).observation
        }

    private fun decide(case: JsonObject): GateDecision {
        val spec = readObservationSpec(Corpus.driftSpecs.getValue(case.text("spec")), "observation")
        val kept = case.getValue("kept").takeIf { it !is JsonNull }?.obj()
        val running = kept?.takeIf { it.flag("runs") }
        return Gate.decide(
            spec,
            window(case, spec, "told"),
            checkNotNull(window(case, spec, "observed")),
            running?.let {
                EditInfo("", "", "", 1, null, it.time("issued_at"), it.time("expires_at"))
            },
            kept != null,
            case.time("now"),
        )
    }

    @TestFactory
    fun `a device asks again where the page says so`(): List<DynamicTest> =
        Corpus.drifts.map { case ->
            dynamicTest(case.text("name")) {
                val (found, drift) =
                    when (val decision = decide(case)) {
                        is GateDecision.Ask -> decision.reason.name.lowercase() to decision.drift
                        is GateDecision.Stay -> "stay" to decision.drift
                    }
                assertEquals(case.text("decision"), found, case.text("about"))
                if (case["drift"] == null) assertNull(drift)
                else checkDrift(case.real("drift"), assertNotNull(drift))
            }
        }

    private fun checkDrift(expected: Double, found: Double) {
        val allowed = maxOf(1e-9 * abs(expected), 1e-12)
        assertTrue(abs(expected - found) <= allowed, "expected $expected, got $found")
    }

    @Test
    fun `every decision has a case`() {
        val reasons = AskReason.values().map { it.name.lowercase() }
        assertEquals(reasons.toSet() + "stay", Corpus.drifts.map { it.text("decision") }.toSet())
        assertTrue(Corpus.drifts.size >= 33)
    }
}
