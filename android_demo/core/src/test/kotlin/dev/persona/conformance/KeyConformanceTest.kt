package dev.persona.conformance

import dev.persona.formats.Code
import dev.persona.formats.DetachedSignature
import dev.persona.formats.JsonNull
import dev.persona.formats.JsonObject
import dev.persona.formats.JsonString
import dev.persona.formats.KeyDocument
import dev.persona.formats.PublicKeys
import dev.persona.formats.parseTime
import dev.persona.formats.verifyKeys
import java.util.Base64
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory

class KeyConformanceTest {
    private fun verify(case: JsonObject): KeyDocument =
        verifyKeys(
            Corpus.bytes(case.text("file")),
            DetachedSignature.ofHeaders(case.text("key_id"), case.text("signature")),
            PublicKeys(
                case.getValue("trusted").list { Base64.getDecoder().decode((it as JsonString).value) }
            ),
            case.whole("sequence"),
            checkNotNull(parseTime(case.text("now"))),
        )

    @TestFactory
    fun `a key document gets its verdict`(): List<DynamicTest> =
        Corpus.keyDocuments.map { case ->
            dynamicTest(case.text("name")) {
                assertEquals(case.text("verdict"), verdict { verify(case) }, case.text("about"))
            }
        }

    @TestFactory
    fun `a good key document says which keys are trusted, and until when`(): List<DynamicTest> =
        Corpus.keyDocuments
            .filter { it.text("verdict") == "ok" }
            .map { case ->
                dynamicTest(case.text("name")) {
                    checkSays(case.getValue("expected").obj(), verify(case))
                }
            }

    private fun checkSays(expected: JsonObject, found: KeyDocument) {
        val base64 = Base64.getEncoder()
        val edit = expected.getValue("edit_keys").list()
        assertEquals(expected.whole("sequence"), found.sequence)
        assertEquals(parseTime(expected.text("issued_at")), found.issuedAt)
        assertEquals(
            edit.associate { it.text("id") to it.text("public_key") },
            found.editKeys.mapValues { base64.encodeToString(it.value.publicKey) },
        )
        assertEquals(
            edit.associate { key ->
                val until = key.getValue("until").takeIf { it !is JsonNull }
                key.text("id") to until?.let { parseTime((it as JsonString).value) }
            },
            found.editKeys.mapValues { it.value.until },
        )
        assertEquals(
            expected.getValue("bundle_keys").list().associate { it.text("id") to it.text("public_key") },
            found.bundleKeys.mapValues { base64.encodeToString(it.value) },
        )
    }

    @Test
    fun `every code of a key document has a case`() {
        val found = Corpus.keyDocuments.map { it.text("verdict") }.toSet()
        val wanted = Code.values().map { it.text }.filter { it.startsWith("keys.") }
        assertEquals(wanted.toSet() + "ok", found)
        assertTrue(Corpus.keyDocuments.size >= 100)
    }
}
