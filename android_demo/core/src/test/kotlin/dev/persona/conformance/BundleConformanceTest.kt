package dev.persona.conformance

import dev.persona.device.Bundle
import dev.persona.formats.DetachedSignature
import dev.persona.formats.JsonObject
import dev.persona.formats.Manifest
import dev.persona.formats.ObservationSpec
import dev.persona.formats.asList
import dev.persona.formats.checkFiles
import dev.persona.formats.decodeBase
import dev.persona.formats.decodeGolden
import dev.persona.formats.decodePrototypes
import dev.persona.formats.patchedHead
import dev.persona.formats.readFeed
import dev.persona.formats.readFileDigest
import dev.persona.formats.readObservationSpec
import dev.persona.formats.verifyManifest
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory

class BundleConformanceTest {
    private val keys = Corpus.keys("bundles")
    private val complete = Corpus.bytes("bundles/complete/manifest.json")
    private val manifest = Manifest.decode(complete)

    private fun cases(of: String, check: (JsonObject) -> Unit): List<DynamicTest> =
        Corpus.bundles.getValue(of).list().map { dynamicTest(it.text("name")) { check(it) } }

    @TestFactory
    fun `a manifest gets its verdict`() =
        cases("manifests") { case ->
            val signature = DetachedSignature.ofHeaders(case.text("key_id"), case.text("signature"))
            val verdict = verdict {
                verifyManifest(Corpus.bytes(case.text("manifest")), signature, keys)
            }
            assertEquals(case.text("verdict"), verdict)
        }

    @TestFactory
    fun `a stored signature gets its verdict where keys are pinned`() =
        cases("signatures") { case ->
            val verdict = verdict { verifyManifest(complete, Corpus.bytes(case.text("signature")), keys) }
            assertEquals(case.text("pinned"), verdict)
        }

    @TestFactory
    fun `a stored signature gets its verdict where no key is pinned`() =
        cases("signatures") { case ->
            val verdict = verdict { verifyManifest(complete, Corpus.bytes(case.text("signature")), null) }
            assertEquals(case.text("unpinned"), verdict)
        }

    @TestFactory
    fun `a folder gets its verdict`() =
        cases("files") { case ->
            val found = case.getValue("found").obj().members
            val digests = found.mapValues { readFileDigest(it.value, it.key) }
            assertEquals(case.text("verdict"), verdict { checkFiles(manifest, digests) })
        }

    @TestFactory
    fun `a tensor file gets its verdict`() =
        cases("tensors") { case ->
            val observation = case["observation"]?.let { readObservationSpec(it, "observation") }
            val verdict = verdict { readTensors(case, observation ?: manifest.observation) }
            assertEquals(case.text("verdict"), verdict)
        }

    private fun readTensors(case: JsonObject, observation: ObservationSpec) {
        val (slots, count) = manifest.slots to manifest.prototypeCount
        val data = Corpus.bytes(case.text("file"))
        when (case.text("kind")) {
            "base" -> decodeBase(slots, data)
            "prototypes" -> decodePrototypes(slots, count, manifest.observation.width, data)
            "golden" ->
                decodeGolden(slots, count, manifest.inputs, manifest.outputs[0], observation, data)
        }
    }

    @TestFactory
    fun `a head is patched byte for byte`() =
        cases("patches") { case ->
            val before = Corpus.bytes(case.text("before"))
            val values = Corpus.tensors(case.text("values")).mapValues { it.value.floats() }
            val feeds = case.getValue("feeds").asList("feeds", ::readFeed)
            val after = patchedHead(before, feeds, values)
            assertContentEquals(Corpus.bytes(case.text("after")), after)
            assertFalse(before.contentEquals(after))
        }

    @Test
    fun `the complete bundle opens, and says who signed it`() {
        val bundle = Bundle.open(Corpus.file("bundles/complete"), keys)
        val (published) = Corpus.json("keys.json").obj().getValue("bundles").list()
        assertEquals(published.text("id"), bundle.keyId)
        assertEquals("cpu", bundle.manifest.program("cpu").target)
    }
}
