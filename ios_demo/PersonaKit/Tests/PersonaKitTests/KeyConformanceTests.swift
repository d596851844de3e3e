import Foundation
import Testing

@testable import PersonaKit

struct KeyConformanceTests {
    @Test func everyKeyDocumentGetsTheVerdictOfTheCorpusAndSaysWhatItExpects() throws {
        let cases = try Corpus.json("keys/cases.json").list
        #expect(cases.count > 100)
        for one in cases {
            let name = one.text("name")
            let signed = SignedKeys(
                data: try Corpus.data(one.text("file")),
                signature: Signature(keyID: one.text("key_id"), base64: one.text("signature"))
            )
            let trusted = one.list("trusted").map { Data(base64Encoded: $0.text)! }
            var document: KeyDocument?
            let found = try verdict {
                document = try KeyDocument.verify(
                    signed, trusted: KeyRing(publicKeys: trusted),
                    sequence: one.number("sequence").whole!, now: Timestamp.parse(one.text("now"))!
                )
            }
            #expect(found == one.text("verdict"), "\(name)")
            if let document, let expected = one["expected"] {
                compare(document, with: expected, "\(name)")
            }
        }
    }

    private func compare(_ document: KeyDocument, with expected: JSONValue, _ name: Comment) {
        #expect(document.sequence == expected.number("sequence").whole, name)
        #expect(Timestamp.format(document.issuedAt) == expected.text("issued_at"), name)

        let edits = expected.list("edit_keys")
        #expect(document.editKeys.count == edits.count, name)
        for entry in edits {
            let id = entry.text("id")
            let trusted = document.editKeys[ExactName(id)]
            #expect(trusted?.key.der == Data(base64Encoded: entry.text("public_key")), name)
            let until = trusted?.until.map { JSONValue.string(Timestamp.format($0)) } ?? .null
            #expect(until == entry["until"], name)
            // Good up to the second before its end, and never without one.
            let end = trusted?.until ?? .distantFuture
            #expect(document.editKeys(at: end.addingTimeInterval(-1)).knows(id), name)
            #expect(document.editKeys(at: end).knows(id) == (entry["until"] == .null), name)
        }
        let publishers = expected.list("bundle_keys")
        #expect(document.bundleKeys.ids == publishers.map { $0.text("id") }.sorted(), name)
    }

    @Test func theRuleThatFailedIsShownAmongThoseOfAKeyDocument() {
        let steps = VerificationStep.all(failed: .keysBadSignature)
        #expect(steps.prefix(3).map(\.result) == [.passed, .passed, .failed])
        #expect(steps.count == 7 && steps.dropFirst(3).allSatisfy { $0.result == .notReached })
    }
}

extension JSONValue {
    fileprivate var text: String {
        guard case .string(let text) = self else { fatalError("no string") }
        return text
    }
}
