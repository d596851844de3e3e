/// The rules of an edit's verification and of a key document's, in their order, with what became of
/// each, for people.

import Foundation

public struct VerificationStep: Sendable, Equatable, Identifiable {
    public enum Result: Sendable, Equatable {
        case passed
        case failed
        case notReached
    }

    public let code: RefusalCode
    public let rule: String
    public let result: Result

    public var id: RefusalCode { code }

    /// `failed`: the first rule that failed, of an edit or of a key document; nil where all of an
    /// edit's passed.
    public static func all(failed: RefusalCode?) -> [VerificationStep] {
        var reached = true
        let rules = keyRules.contains { $0.0 == failed } ? keyRules : editRules
        return rules.map { code, rule in
            defer { reached = reached && code != failed }
            let result: Result = !reached ? .notReached : code == failed ? .failed : .passed
            return VerificationStep(code: code, rule: rule, result: result)
        }
    }

    private static let editRules: [(RefusalCode, String)] = [
        (.editTooLarge, "the file is not larger than the bundle allows"),
        (.editUnknownKey, "the key is trusted for edits"),
        (.editBadSignature, "the signature is over these bytes"),
        (.containerTruncated, "the header is there"),
        (.containerHeaderTooLong, "the header is within its limit"),
        (.containerHeaderInvalid, "the header is strict JSON"),
        (.containerDuplicateKey, "no key stands twice"),
        (.containerSizeMismatch, "shapes fit offsets"),
        (.containerOutOfBounds, "all tensors end within the file"),
        (.containerOverlap, "no two tensors share bytes"),
        (.containerHole, "no bytes lie between tensors"),
        (.containerTrailingBytes, "no bytes follow the last tensor"),
        (.editUnknownFormat, "the format is \(EditFile.format)"),
        (.editMetadataInvalid, "the metadata are complete and well-formed"),
        (.editOtherBase, "made for this model and bundle"),
        (.editOtherDevice, "made for this device"),
        (.editReplayed, "newer than the newest edit so far"),
        (.editExpired, "not expired"),
        (.editFromFuture, "not from the future"),
        (.editUnknownPrototype, "its prototype exists"),
        (.slotMissing, "every slot has a tensor"),
        (.slotUnknown, "every tensor is of a slot"),
        (.slotKind, "every slot has the tensors of its kind"),
        (.slotShape, "every tensor has its slot's shape"),
        (.slotDtype, "every slot tensor is F16 or F32"),
        (.probeMissing, "there is a probe"),
        (.probeShape, "the probe has the golden output's shape"),
        (.valueNotFinite, "all values are finite"),
        (.valueBeyondBound, "all values are within their slot's bound"),
        (.probeMismatch, "the edited program does what the cloud computed"),
        (.probeNoEffect, "the edit has an effect"),
    ]

    private static let keyRules: [(RefusalCode, String)] = [
        (.keysTooLarge, "the document is not larger than allowed"),
        (.keysUnknownKey, "the key is trusted for bundles"),
        (.keysBadSignature, "the signature is over these bytes"),
        (.keysUnknownFormat, "the format is \(KeyDocument.format)"),
        (.keysInvalid, "the document is complete and well-formed"),
        (.keysReplayed, "newer than the document that the device has"),
        (.keysFromFuture, "not from the future"),
    ]
}
