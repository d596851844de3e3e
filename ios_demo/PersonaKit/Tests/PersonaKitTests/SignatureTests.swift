import Foundation
import Testing

@testable import PersonaKit

struct SignatureTests {
    /// SEQUENCE of two INTEGERs.
    private func der(_ r: [UInt8], _ s: [UInt8], after: [UInt8] = []) -> Data {
        let body = [0x02, UInt8(r.count)] + r + [0x02, UInt8(s.count)] + s
        return Data([0x30, UInt8(body.count)] + body + after)
    }

    @Test func integersStandInTheirShortestFormAndNothingFollows() {
        let plain: [UInt8] = [0x12, 0x34]
        #expect(DERSignature.isStrict(der(plain, plain)))
        #expect(DERSignature.isStrict(der([0x00, 0x80], plain)))
        #expect(!DERSignature.isStrict(der([0x00, 0x12], plain)), "padded without need")
        #expect(!DERSignature.isStrict(der([0x80, 0x12], plain)), "negative")
        #expect(!DERSignature.isStrict(der([], plain)), "empty")
        #expect(!DERSignature.isStrict(der(plain, plain, after: [0])), "bytes after the end")
        #expect(!DERSignature.isStrict(der(plain, plain).dropLast()), "cut")
        #expect(!DERSignature.isStrict(Data([0x30, 0x81, 0x08] + der(plain, plain).dropFirst(2))))
    }

    @Test func aDigestIsThatOfThePublishedExample() {
        // FIPS 180-4's example "abc".
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        #expect(sha256(Data("abc".utf8)) == digest)
    }

    @Test func onlyPointsOnTheCurveAreKeys() throws {
        let sound = Data(
            base64Encoded: try Corpus.json("keys.json").list("edits")[0].text("public_key"))!
        _ = try KeyRing(publicKeys: [sound])
        var off = sound
        off[off.count - 1] ^= 1
        #expect(throws: PublicKeyError.self) { try KeyRing(publicKeys: [off]) }
        #expect(throws: PublicKeyError.self) { try KeyRing(publicKeys: [sound.dropLast()]) }
    }
}
