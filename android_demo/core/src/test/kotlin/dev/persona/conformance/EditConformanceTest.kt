package dev.persona.conformance

import dev.persona.formats.Code
import dev.persona.formats.DetachedSignature
import dev.persona.formats.FloatTensor
import dev.persona.formats.JsonObject
import dev.persona.formats.VerifiedEdit
import dev.persona.formats.changesNothing
import dev.persona.formats.checkProbe
import dev.persona.formats.decodeBase
import dev.persona.formats.decodePrototypes
import dev.persona.formats.effective
import dev.persona.formats.parseTime
import dev.persona.formats.sumChanges
import dev.persona.formats.verifyEdit
import dev.persona.formats.zeroEdit
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory

class EditConformanceTest {
    private val keys = Corpus.keys("edits")

    private fun verify(case: JsonObject): VerifiedEdit =
        verifyEdit(
            Corpus.bytes(case.text("edit")),
            DetachedSignature.ofHeaders(case.text("key_id"), case.text("signature")),
            keys,
            Corpus.expectation(case.text("expectation")),
            checkNotNull(parseTime(case.text("now"))),
        )

    @TestFactory
    fun `an edit gets its verdict`(): List<DynamicTest> =
        Corpus.edits.map { case ->
            dynamicTest(case.text("name")) {
                assertEquals(case.text("verdict"), verdict { verify(case) }, case.text("about"))
            }
        }

    @TestFactory
    fun `a good edit changes the slots bit for bit as computed elsewhere`(): List<DynamicTest> =
        Corpus.edits
            .filter { it.text("verdict") == "ok" }
            .map { case -> dynamicTest(case.text("name")) { checkApplied(case) } }

    private fun checkApplied(case: JsonObject) {
        val name = case.text("expectation")
        val (known, slots) = Corpus.expectations.getValue(name).obj() to Corpus.slots(name)
        val edit = verify(case)
        val base = decodeBase(slots, Corpus.bytes(known.text("base")))
        val prototypes =
            decodePrototypes(
                slots,
                known.whole("prototype_count"),
                known.whole("observation_width"),
                Corpus.bytes(known.text("prototypes")),
            )
        val chosen = edit.info.prototype
        val prototype = chosen?.let { prototypes.changes[it.toInt()] } ?: zeroEdit(slots)

        val found = HashMap<String, FloatTensor>()
        for ((n, v) in sumChanges(slots, prototype, edit.tensors)) found["change.$n"] = v
        for ((n, v) in effective(slots, base, prototype, edit.tensors)) found["effective.$n"] = v
        found["probe.expected"] = edit.probe
        val expected = Corpus.tensors(case.text("expected")).mapValues { it.value.floats() }
        assertEquals(expected, found)
        assertEquals(case.flag("changes_nothing"), changesNothing(slots, prototype, edit.tensors))
        assertEquals(case.text("sequence"), "${edit.info.sequence}")
        assertEquals(case.text("prototype"), chosen?.toString() ?: "none")
    }

    @TestFactory
    fun `a prototype is chosen as in exact arithmetic`(): List<DynamicTest> =
        Corpus.expectations.members.keys
            .filter { "assignments" in Corpus.expectations.getValue(it).obj().members }
            .map { name -> dynamicTest(name) { checkAssignments(name) } }

    private fun checkAssignments(name: String) {
        val known = Corpus.expectations.getValue(name).obj()
        val width = known.whole("observation_width")
        val prototypes =
            decodePrototypes(
                Corpus.slots(name),
                known.whole("prototype_count"),
                width,
                Corpus.bytes(known.text("prototypes")),
            )
        val cases = Corpus.tensors(known.text("assignments"))
        val vectors = cases.getValue("vectors").floats().values.toList().chunked(width.toInt())
        val chosen = vectors.map { prototypes.assign(it.toFloatArray()).toLong() }
        assertEquals(cases.getValue("chosen").longs().values.toList(), chosen)
    }

    @TestFactory
    fun `a probe gets its verdict`(): List<DynamicTest> {
        val tensors = Corpus.tensors("probes/probes.safetensors")
        return Corpus.probes.map { case ->
            dynamicTest(case.text("name")) {
                val (expected, output, base) =
                    listOf("expected", "output", "base").map {
                        tensors.getValue("${case.text("name")}.$it").floats()
                    }
                val verdict = verdict {
                    checkProbe(expected, output, base, case.real("tolerance"), case.flag("zero"))
                }
                assertEquals(case.text("verdict"), verdict, case.text("about"))
            }
        }
    }

    @Test
    fun `every code of an edit has a case`() {
        val found = (Corpus.edits + Corpus.probes).map { it.text("verdict") }.toSet()
        val wanted = Code.values().map { it.text }.filter { it.substringBefore('.') !in OTHERS }
        assertTrue(found.containsAll(wanted), "without a case: ${wanted - found}")
        assertTrue(Corpus.edits.size >= 500)
    }

    private companion object {
        val OTHERS = listOf("bundle", "observation", "keys")
    }
}
