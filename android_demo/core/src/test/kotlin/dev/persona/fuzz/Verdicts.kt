package dev.persona.fuzz

import dev.persona.conformance.Corpus
import dev.persona.conformance.verdict
import dev.persona.formats.Container
import dev.persona.formats.DetachedSignature
import dev.persona.formats.JsonException
import dev.persona.formats.Manifest
import dev.persona.formats.RepeatedKeyException
import dev.persona.formats.decodeBase
import dev.persona.formats.decodeGolden
import dev.persona.formats.decodePrototypes
import dev.persona.formats.parseJson
import dev.persona.formats.parseObservation
import dev.persona.formats.parseTime
import dev.persona.formats.readObservation
import dev.persona.formats.readObservationSpec
import dev.persona.formats.verifyEdit
import dev.persona.formats.verifyManifest
import java.io.BufferedWriter
import java.util.Base64

/**
 * Answers a verdict a line, for `fuzz/compare.py`: each line on standard input is a reader's name,
 * what it needs to know, and the bytes in base64, apart by spaces. `crash` with an exception's name
 * stands for what a reader must never do.
 */
object Verdicts {
    private val manifestBytes = Corpus.bytes("bundles/complete/manifest.json")
    private val manifest = Manifest.decode(manifestBytes)
    private val editKeys = Corpus.keys("edits")
    private val bundleKeys = Corpus.keys("bundles")
    private val expectations = Corpus.expectations.members.keys.associateWith(Corpus::expectation)
    private val specs = Corpus.specs.members.mapValues { readObservationSpec(it.value, it.key) }

    @JvmStatic
    fun main(arguments: Array<String>) {
        System.out.bufferedWriter().use { out: BufferedWriter ->
            for (line in generateSequence(::readlnOrNull)) {
                out.write(answer(line.split(' ')))
                out.newLine()
            }
        }
    }

    private fun answer(words: List<String>): String =
        try {
            val data = Base64.getDecoder().decode(words.last())
            verdict { read(words, data) }
        } catch (_: RepeatedKeyException) {
            "repeated"
        } catch (_: JsonException) {
            "malformed"
        } catch (e: Exception) {
            "crash ${e.javaClass.simpleName}"
        } catch (e: StackOverflowError) {
            "crash ${e.javaClass.simpleName}"
        }

    /** Hands [data] to the reader that the first word names. */
    fun read(words: List<String>, data: ByteArray) {
        val (slots, count) = manifest.slots to manifest.prototypeCount
        when (words[0]) {
            "json" -> parseJson(data)
            "container" -> Container.decode(data)
            "edit" -> {
                val signature = DetachedSignature.ofHeaders(words[2], words[3])
                val now = checkNotNull(parseTime(words[4]))
                verifyEdit(data, signature, editKeys, expectations.getValue(words[1]), now)
            }
            "manifest" -> Manifest.decode(data)
            "signature" -> verifyManifest(manifestBytes, data, bundleKeys)
            "unpinned" -> verifyManifest(manifestBytes, data, null)
            "base" -> decodeBase(slots, data)
            "prototypes" -> decodePrototypes(slots, count, manifest.observation.width, data)
            "golden" ->
                decodeGolden(
                    slots,
                    count,
                    manifest.inputs,
                    manifest.outputs[0],
                    manifest.observation,
                    data,
                )
            "observation" -> readObservation(specs.getValue(words[1]), data)
            "observation-json" -> parseObservation(specs.getValue(words[1]), data)
            else -> error("no reader ${words[0]}")
        }
    }
}
