package dev.persona.fuzz

import dev.persona.conformance.Corpus
import dev.persona.conformance.getValue
import dev.persona.conformance.list
import dev.persona.conformance.text
import dev.persona.conformance.verdict
import dev.persona.formats.JsonObject
import java.util.Random
import kotlin.test.Test

/** Readers refuse with a code and nothing else, whatever they are given. `fuzz/` compares codes. */
class FuzzTest {
    private val random = Random(20260601)

    private fun mutated(data: ByteArray): ByteArray {
        val out = data.toMutableList()
        repeat(1 + random.nextInt(3)) {
            val at = if (out.isEmpty()) 0 else random.nextInt(out.size)
            when (random.nextInt(4)) {
                0 -> if (out.isNotEmpty()) out[at] = random.nextInt(256).toByte()
                1 -> if (out.isNotEmpty()) out.removeAt(at)
                2 -> out.add(at, JSON[random.nextInt(JSON.length)].code.toByte())
                3 -> while (out.size > at) out.removeAt(out.size - 1)
            }
        }
        return out.toByteArray()
    }

    private fun attack(cases: List<JsonObject>, field: String, words: (JsonObject) -> List<String>) {
        repeat(3_000) {
            val case = cases[random.nextInt(cases.size)]
            val data = mutated(Corpus.bytes(case.text(field)))
            verdict { Verdicts.read(words(case), data) }
        }
    }

    @Test
    fun `edits`() =
        attack(Corpus.edits, "edit") { listOf("container", it.text("expectation")) }

    @Test
    fun `manifests`() = attack(cases("manifests"), "manifest") { listOf("manifest") }

    @Test
    fun `stored signatures`() = attack(cases("signatures"), "signature") { listOf("unpinned") }

    @Test
    fun `tensor files`() = attack(cases("tensors"), "file") { listOf(it.text("kind")) }

    @Test
    fun `observations`() =
        attack(Corpus.observations.filter { it.text("form") != "window" }, "file") {
            val reader = if (it.text("form") == "json") "observation-json" else "observation"
            listOf(reader, it.text("spec"))
        }

    private fun cases(of: String) = Corpus.bundles.getValue(of).list()

    private companion object {
        const val JSON = "\"{}[],:0e-\\"
    }
}
