package dev.persona.conformance

import dev.persona.formats.Envelope
import dev.persona.formats.JsonObject
import dev.persona.formats.ObservationSpec
import dev.persona.formats.PooledSpec
import dev.persona.formats.parseJson
import dev.persona.formats.parseObservation
import dev.persona.formats.pool
import dev.persona.formats.readObservation
import dev.persona.formats.readObservationSpec
import dev.persona.formats.toJson
import dev.persona.formats.toSafetensors
import dev.persona.formats.write
import kotlin.math.abs
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory

class ObservationConformanceTest {
    private fun spec(case: JsonObject): ObservationSpec =
        readObservationSpec(Corpus.specs.getValue(case.text("spec")), "observation")

    private fun observe(case: JsonObject): Envelope {
        val (spec, file) = spec(case) to case.text("file")
        return when (case.text("form")) {
            "json" -> parseObservation(spec, Corpus.bytes(file))
            "safetensors" -> readObservation(spec, Corpus.bytes(file))
            else -> {
                val window = Corpus.tensors(file).mapValues { it.value.floats() }
                val (x, p) = window.getValue("features") to window.getValue("posterior")
                Envelope("", pool(spec as PooledSpec, x, p))
            }
        }
    }

    @TestFactory
    fun `an observation gets its verdict`(): List<DynamicTest> =
        Corpus.observations.map { case ->
            dynamicTest(case.text("name")) {
                assertEquals(case.text("verdict"), verdict { observe(case) }, case.text("about"))
            }
        }

    @TestFactory
    fun `a good observation gives its vector`(): List<DynamicTest> =
        Corpus.observations
            .filter { it.text("verdict") == "ok" }
            .map { case -> dynamicTest(case.text("name")) { checkVector(case) } }

    private fun checkVector(case: JsonObject) {
        val envelope = observe(case)
        val found = envelope.observation.vector(spec(case))
        val expected = Corpus.tensors(case.text("vector")).getValue("vector").floats().values
        if (case.text("form") == "window") {
            assertEquals(expected.size, found.size)
            for (i in expected.indices) {
                val allowed = 1e-6 * abs(expected[i]) + 1e-7
                assertTrue(abs(expected[i] - found[i]) <= allowed, "$i: ${expected[i]}, ${found[i]}")
            }
        } else {
            assertEquals(case.text("bundle"), envelope.bundle)
            assertContentEquals(expected, found)
        }
    }

    @TestFactory
    fun `what is written in both forms is read as it was`(): List<DynamicTest> =
        Corpus.observations
            .filter { it.text("verdict") == "ok" }
            .map { case ->
                dynamicTest(case.text("name")) {
                    val (spec, observation) = spec(case) to observe(case).observation
                    val sent = Envelope("b".repeat(64), observation)
                    val json = sent.toJson().write()
                    val forms =
                        listOf(
                            readObservation(spec, sent.toSafetensors()),
                            parseObservation(spec, json.toByteArray()),
                        )
                    for (read in forms) {
                        assertEquals(sent.bundle, read.bundle)
                        assertContentEquals(
                            observation.vector(spec),
                            read.observation.vector(spec),
                        )
                    }
                    assertEquals(sent.toJson(), parseJson(json.toByteArray()))
                }
            }
}
