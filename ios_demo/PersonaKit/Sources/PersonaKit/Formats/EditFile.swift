/// The edit file `persona.edit/1`, and its verification: a pure function of the bytes, their
/// signature, and what a device knows.
///
/// The rules, in this order; the first that fails gives the code (docs/edit-format.md,
/// "Verification"):
///
///  1. the file is not larger than the bundle allows
///  2. its signature is by a key that is trusted for edits, over all bytes of the file
///  3. it is a well-formed container
///  4. its format is known and its metadata are well formed
///  5. it was made for this bundle, for this device, and after the edit that the device has
///  6. it has not expired and is not from the future
///  7. its prototype exists, and its tensors are those of the slots: names, kind, shape, dtype
///  8. every value is finite and within its slot's bound
///
/// Nothing is applied before all have passed. After the swap comes the probe (`Probe`).

import Foundation

/// What an edit says of itself.
public struct EditInfo: Sendable, Equatable {
    public let model: String
    /// sha256 of the bundle's manifest, hex.
    public let bundle: String
    public let device: String
    /// Grows with each edit of a device.
    public let sequence: Int64
    /// The prototype that the edit is added to; nil for the base.
    public let prototype: Int?
    public let issuedAt: Date
    public let expiresAt: Date
}

/// A verified edit: what it says, its change `SLOT.SUFFIX` → values, and the probe.
public struct Edit: Sendable, Equatable {
    public let info: EditInfo
    public let tensors: SlotTensors
    public let probe: FloatTensor
}

/// An edit as it came: not yet verified.
public struct SignedEdit: Sendable, Equatable {
    public let data: Data
    public let signature: Signature
    /// Sequence of the cloud's newest key document, as it said with the edit; 0 where it did not.
    public let newestKeys: Int64

    public init(data: Data, signature: Signature, newestKeys: Int64 = 0) {
        self.data = data
        self.signature = signature
        self.newestKeys = newestKeys
    }
}

/// What a device knows when an edit comes.
public struct EditExpectation: Sendable {
    public let model: String
    public let bundle: String
    public let device: String
    /// Of the newest edit that it ever accepted; 0 before the first.
    public let sequence: Int64
    public let slots: [Slot]
    public let prototypeCount: Int
    /// Shape of the first golden output.
    public let probeShape: [Int]
    public let maxBytes: Int
}

public enum EditFile {
    public static let format = "persona.edit/1"
    public static let mediaType = "application/vnd.persona.edit+safetensors"
    static let probeName: ExactName = "probe.expected"

    /// How far a phone's clock may lag behind the cloud's, in seconds.
    static let clockSkew = 300.0

    private static let metadataKeys: Set<ExactName> = [
        "format", "model", "bundle", "device", "sequence", "prototype", "issued_at", "expires_at",
    ]

    /// The edit in `signed`, if every rule holds. Throws the first that does not.
    public static func verify(
        _ signed: SignedEdit, keys: KeyRing, expected: EditExpectation, now: Date
    ) throws(FormatError) -> Edit {
        try checkSize(signed.data, expected)
        try checkSignature(signed, keys)
        let container = try SafetensorsContainer(decoding: signed.data)
        guard container.metadata["format"]?.isExactly(format) == true else {
            throw FormatError(
                .editUnknownFormat,
                "expected format '\(format)', got '\(container.metadata["format"] ?? "none")'; "
                    + "this reader is older or newer than the cloud"
            )
        }
        let info = try readInfo(container.metadata)
        try checkAddressee(info, expected)
        try checkTime(info, now)
        try checkTensors(info, container.tensors, expected)
        return try readValues(info, container.tensors, expected.slots)
    }

    /// What an edit whose `format` is known says of itself. It is not verified by this.
    static func readInfo(_ metadata: [ExactName: String]) throws(FormatError) -> EditInfo {
        guard Set(metadata.keys) == metadataKeys else {
            let names = metadata.keys.sorted().map(\.text).joined(separator: ", ")
            throw metadataInvalid("the keys must be exactly those of the format, got \(names)")
        }
        let (model, device) = (metadata["model"]!, metadata["device"]!)
        let bundle = metadata["bundle"]!
        let prototype = metadata["prototype"]!
        guard !model.isEmpty, !device.isEmpty else {
            throw metadataInvalid("model and device must not be empty")
        }
        guard isDigest(bundle) else {
            throw metadataInvalid("bundle '\(bundle)' is not a sha256 in lower-case hex")
        }
        guard let sequence = readWhole(metadata["sequence"]!), sequence >= 1 else {
            throw metadataInvalid("sequence must be a whole number from 1")
        }
        let relative = prototype.isExactly("none") ? nil : readWhole(prototype)
        guard prototype.isExactly("none") || relative != nil else {
            throw metadataInvalid("prototype must be 'none' or a whole number")
        }
        guard let issued = Timestamp.parse(metadata["issued_at"]!),
            let expires = Timestamp.parse(metadata["expires_at"]!)
        else {
            throw metadataInvalid("times must be UTC such as 2026-01-31T12:00:00Z")
        }
        guard issued < expires else {
            throw metadataInvalid("expires_at must be later than issued_at")
        }
        return EditInfo(
            model: model, bundle: bundle, device: device, sequence: sequence,
            prototype: relative.map(Int.init), issuedAt: issued, expiresAt: expires
        )
    }

    /// A decimal whole number up to 2⁵³ − 1 without sign or leading zero; nil for anything else.
    static func readWhole(_ text: String) -> Int64? {
        let bytes = text.utf8
        guard bytes.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
            bytes.first != UInt8(ascii: "0") || bytes.count == 1,
            let value = Int64(text), value <= largestWhole
        else { return nil }
        return value
    }

    static func isDigest(_ text: String) -> Bool {
        text.utf8.count == 64
            && text.utf8.allSatisfy {
                (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
                    || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0)
            }
    }

    private static func metadataInvalid(_ message: String) -> FormatError {
        FormatError(.editMetadataInvalid, "edit metadata: \(message)")
    }

    /// What a sound cloud never signs, so asking again alone does not help.
    private static func faulty(_ code: RefusalCode, _ message: String) -> FormatError {
        FormatError(
            code,
            "\(message). The cloud signed a faulty edit: tell who runs it, and go on without"
        )
    }

    private static func checkSize(
        _ data: Data, _ expected: EditExpectation
    ) throws(FormatError) {
        guard data.count <= expected.maxBytes else {
            throw FormatError(
                .editTooLarge,
                "the edit has \(data.count) bytes; at most \(expected.maxBytes) are allowed. "
                    + "Check that this is the right cloud, and ask again"
            )
        }
    }

    private static func checkSignature(
        _ signed: SignedEdit, _ keys: KeyRing
    ) throws(FormatError) {
        guard keys.knows(signed.signature.keyID) else {
            throw FormatError(
                .editUnknownKey,
                "signed with key '\(signed.signature.keyID)', which neither the bundle nor a key "
                    + "document names for now; export the bundle for this cloud, or ask the right "
                    + "cloud"
            )
        }
        guard keys.verifies(signed.signature, over: signed.data) else {
            throw FormatError(
                .editBadSignature,
                "the signature by key '\(signed.signature.keyID)' does not match the bytes; "
                    + "ask again"
            )
        }
    }

    private static func checkAddressee(
        _ info: EditInfo, _ expected: EditExpectation
    ) throws(FormatError) {
        guard info.model.isExactly(expected.model), info.bundle.isExactly(expected.bundle) else {
            throw FormatError(
                .editOtherBase,
                "made for \(info.model) with bundle \(info.bundle.prefix(12)), this device runs "
                    + "\(expected.model) with bundle \(expected.bundle.prefix(12)); "
                    + "ask for an edit again"
            )
        }
        guard info.device.isExactly(expected.device) else {
            throw FormatError(
                .editOtherDevice,
                "made for device '\(info.device)', this is '\(expected.device)'; "
                    + "ask for one of its own"
            )
        }
        guard info.sequence > expected.sequence else {
            throw FormatError(
                .editReplayed,
                "sequence \(info.sequence) is not newer than \(expected.sequence), which this "
                    + "device has already had; ask for a new one"
            )
        }
    }

    private static func checkTime(_ info: EditInfo, _ now: Date) throws(FormatError) {
        guard info.expiresAt > now else {
            throw FormatError(
                .editExpired,
                "expired at \(Timestamp.format(info.expiresAt)), it is \(Timestamp.format(now)); "
                    + "ask again"
            )
        }
        guard info.issuedAt.timeIntervalSince(now) <= clockSkew else {
            throw FormatError(
                .editFromFuture,
                "issued at \(Timestamp.format(info.issuedAt)), but it is "
                    + "\(Timestamp.format(now)) here; check the clock of the device and of the cloud"
            )
        }
    }

    /// Rules 21 to 28 of the page, each for all slots before the next.
    private static func checkTensors(
        _ info: EditInfo, _ tensors: [ExactName: StoredTensor], _ expected: EditExpectation
    ) throws(FormatError) {
        if let prototype = info.prototype, prototype >= expected.prototypeCount {
            throw faulty(
                .editUnknownPrototype,
                "relative to prototype \(prototype); the bundle has \(expected.prototypeCount)"
            )
        }
        let slots = expected.slots
        let possible = slots.map { slot in
            Set(Slot.suffixes.map { ExactName("\(slot.name).\($0)") })
        }
        for (slot, names) in zip(slots, possible) where names.isDisjoint(with: tensors.keys) {
            throw faulty(.slotMissing, "the edit has no tensor for slot '\(slot.name)'")
        }
        let known = possible.reduce(Set([probeName])) { $0.union($1) }
        if let name = tensors.keys.sorted().first(where: { !known.contains($0) }) {
            throw faulty(.slotUnknown, "tensor '\(name)' belongs to no slot")
        }
        for (slot, names) in zip(slots, possible) {
            let wanted = Set(slot.tensors.map { ExactName($0.name) })
            let found = names.intersection(tensors.keys)
            guard found == wanted else {
                throw faulty(
                    .slotKind,
                    "slot '\(slot.name)' is \(slot.kind.rawValue) and wants "
                        + "\(wanted.sorted()); the edit has \(found.sorted())"
                )
            }
        }
        let wanted = slots.flatMap(\.tensors)
        for tensor in wanted {
            let shape = tensors[ExactName(tensor.name)]!.shape
            guard shape == tensor.shape else {
                throw faulty(
                    .slotShape,
                    "'\(tensor.name)' must have shape \(tensor.shape), got \(shape)"
                )
            }
        }
        for tensor in wanted {
            let dtype = tensors[ExactName(tensor.name)]!.dtype
            guard dtype == .f16 || dtype == .f32 else {
                throw faulty(
                    .slotDtype, "'\(tensor.name)' must be F16 or F32, got \(dtype.rawValue)"
                )
            }
        }
        guard let probe = tensors[probeName] else {
            throw faulty(.probeMissing, "the edit has no '\(probeName)'")
        }
        guard probe.dtype == .f32, probe.shape == expected.probeShape else {
            throw faulty(
                .probeShape,
                "'\(probeName)' must be F32 with shape \(expected.probeShape), got "
                    + "\(probe.dtype.rawValue) with shape \(probe.shape)"
            )
        }
    }

    private static func readValues(
        _ info: EditInfo, _ tensors: [ExactName: StoredTensor], _ slots: [Slot]
    ) throws(FormatError) -> Edit {
        let wanted = slots.flatMap(\.tensors)
        var values: SlotTensors = [:]
        for tensor in wanted {
            values[tensor.name] = tensors[ExactName(tensor.name)]!.floats!
        }
        let probe = tensors[probeName]!.floats!
        for (name, tensor) in wanted.map({ ($0.name, values[$0.name]!) }) + [
            (probeName.text, probe)
        ]
        where !tensor.values.allSatisfy(\.isFinite) {
            throw faulty(
                .valueNotFinite, "'\(name)' holds NaN or infinity, only finite numbers are taken"
            )
        }
        for tensor in wanted {
            let largest = values[tensor.name]!.largestMagnitude
            guard largest <= tensor.limit else {
                throw faulty(
                    .valueBeyondBound,
                    "'\(tensor.name)' reaches \(largest); its slot allows \(tensor.limit)"
                )
            }
        }
        return Edit(info: info, tensors: values, probe: probe)
    }
}
