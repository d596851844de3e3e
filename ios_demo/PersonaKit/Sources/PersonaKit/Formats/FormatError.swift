/// One code a fault, the same in Python, Kotlin and Swift.
///
/// A program reads `FormatError.code`; a person reads its message, which says what was expected,
/// what came, and what to do. `tests/conformance/` pins the codes.

import Foundation

/// Stable codes, in the order in which an edit is verified.
public enum RefusalCode: String, Sendable, CaseIterable, Hashable {
    case editTooLarge = "edit.too_large"
    case editUnknownKey = "edit.unknown_key"
    case editBadSignature = "edit.bad_signature"

    case containerTruncated = "container.truncated"
    case containerHeaderTooLong = "container.header_too_long"
    case containerHeaderInvalid = "container.header_invalid"
    case containerDuplicateKey = "container.duplicate_key"
    case containerSizeMismatch = "container.size_mismatch"
    case containerOutOfBounds = "container.out_of_bounds"
    case containerOverlap = "container.overlap"
    case containerHole = "container.hole"
    case containerTrailingBytes = "container.trailing_bytes"

    case editUnknownFormat = "edit.unknown_format"
    case editMetadataInvalid = "edit.metadata_invalid"
    case editOtherBase = "edit.other_base"
    case editOtherDevice = "edit.other_device"
    case editReplayed = "edit.replayed"
    case editExpired = "edit.expired"
    case editFromFuture = "edit.from_future"
    case editUnknownPrototype = "edit.unknown_prototype"

    case slotMissing = "slot.missing"
    case slotUnknown = "slot.unknown"
    case slotKind = "slot.kind"
    case slotShape = "slot.shape"
    case slotDtype = "slot.dtype"
    case probeMissing = "probe.missing"
    case probeShape = "probe.shape"
    case valueNotFinite = "value.not_finite"
    case valueBeyondBound = "value.beyond_bound"

    case probeMismatch = "probe.mismatch"
    case probeNoEffect = "probe.no_effect"

    case bundleFileMissing = "bundle.file_missing"
    case bundleFileChanged = "bundle.file_changed"
    case bundleFileUnlisted = "bundle.file_unlisted"
    case bundleBadSignature = "bundle.bad_signature"
    case bundleUnknownKey = "bundle.unknown_key"
    case bundleManifestInvalid = "bundle.manifest_invalid"
    case bundleTensorsInvalid = "bundle.tensors_invalid"
    case bundleGoldenMismatch = "bundle.golden_mismatch"

    case observationInvalid = "observation.invalid"
    case observationEmpty = "observation.empty"
    case observationTooLong = "observation.too_long"
    case observationWidth = "observation.width"
    case observationNotFinite = "observation.not_finite"
    case observationOtherBase = "observation.other_base"

    case keysTooLarge = "keys.too_large"
    case keysUnknownKey = "keys.unknown_key"
    case keysBadSignature = "keys.bad_signature"
    case keysUnknownFormat = "keys.unknown_format"
    case keysInvalid = "keys.invalid"
    case keysReplayed = "keys.replayed"
    case keysFromFuture = "keys.from_future"
}

/// An error that a program tells apart by its code and a person by its message.
public protocol CodedError: LocalizedError, Sendable {
    /// Stable; of `RefusalCode` where a file broke the contract.
    var code: String { get }
    /// What was expected, what came, and what to do next.
    var message: String { get }
}

extension CodedError {
    public var errorDescription: String? { "\(message) [\(code)]" }
}

/// A file or document that breaks the contract of docs/edit-format.md.
public struct FormatError: CodedError, Equatable {
    public let refusal: RefusalCode
    public let message: String

    public init(_ refusal: RefusalCode, _ message: String) {
        self.refusal = refusal
        self.message = message
    }

    public var code: String { refusal.rawValue }
}
