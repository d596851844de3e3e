/// What a device keeps between starts: who it is, its newest sequence, its active edit, and what it
/// last told the cloud.
///
/// The edit's bytes are written first, the small state file that names them last, each atomically:
/// killed at any moment, the next start finds the old edit or the new one, whole. Files are those
/// of the reference device in Python.

import Foundation

struct DeviceState: Equatable {
    /// Digest that the active edit was made for.
    var bundle: String
    /// From enrolment; the token is the secret for the cloud. Both are empty before.
    var device = ""
    var token = ""
    /// Of the newest verified edit.
    var sequence: Int64 = 0
    /// Sequence of the active edit, if there is one.
    var edit: Int64?

    func encoded() -> Data {
        JSONValue.object([
            JSONMember("bundle", .string(bundle)), JSONMember("device", .string(device)),
            JSONMember("token", .string(token)), JSONMember("sequence", .whole(Int(sequence))),
            JSONMember("edit", edit.map { .whole(Int($0)) } ?? .null),
        ]).encoded()
    }

    init(bundle: String) {
        self.bundle = bundle
    }

    /// nil where the bytes are no state.
    init?(decoding data: Data) {
        guard let document = try? StrictJSONReader.parse(data),
            let object = try? JSONField(value: document, path: "state").object([
                "bundle", "device", "token", "sequence", "edit",
            ]),
            let bundle = try? object["bundle"].string(),
            let device = try? object["device"].string(),
            let token = try? object["token"].string(),
            let sequence = try? object["sequence"].whole(from: 0)
        else { return nil }
        self.bundle = bundle
        self.device = device
        self.token = token
        self.sequence = Int64(sequence)
        do {
            edit = try object.optional("edit").map { field throws(SchemaError) in
                Int64(try field.whole(from: 1))
            }
        } catch {
            return nil
        }
    }
}

/// A folder on the device. Owned by one `LiveModel`.
final class DeviceStore {
    private static let stateName = "state.json"
    private static let toldName = "told.safetensors"

    private let folder: URL
    private(set) var state: DeviceState

    /// Open the folder, or make it. With a new bundle the old edit no longer applies; who we are
    /// does.
    init(folder: URL, bundle: String) throws(StorageError) {
        self.folder = folder
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw StorageError(
                message: "cannot keep a device in \(folder.path): \(error.localizedDescription)"
            )
        }
        let stored = try? Data(contentsOf: folder.appending(path: Self.stateName))
        state = stored.flatMap(DeviceState.init(decoding:)) ?? DeviceState(bundle: bundle)
        if state.bundle != bundle {
            state.bundle = bundle
            state.edit = nil
        }
        sweep()
    }

    /// Remember who the cloud says that we are. Another device's edit no longer applies.
    func enrolled(device: String, token: String) throws(StorageError) {
        var next = state
        if device != state.device {
            next.sequence = 0
            next.edit = nil
        }
        next.device = device
        next.token = token
        try save(next)
    }

    /// The cloud knows us no more: neither our token nor what it was told counts.
    func forgetEnrolment() throws(StorageError) {
        unlink(toldFile.path)
        var next = state
        next.token = ""
        try save(next)
    }

    /// Make a verified and probed edit the one that the next start finds.
    func activate(_ signed: SignedEdit, sequence: Int64) throws(StorageError) {
        let files = files(of: sequence)
        try DurableFile.write(StoredSignature(signed.signature).encoded(), to: files.signature)
        try DurableFile.write(signed.data, to: files.edit)
        var next = state
        next.sequence = sequence
        next.edit = sequence
        try save(next)
        sweep()
    }

    /// An edit was refused by its probe: what ran before runs on, and that edit may not come back.
    func refused(sequence: Int64) throws(StorageError) {
        var next = state
        next.sequence = sequence
        try save(next)
    }

    /// Forget the active edit, keep its sequence: it may not come back.
    func deactivate() throws(StorageError) {
        var next = state
        next.edit = nil
        try save(next)
        sweep()
    }

    /// The active edit, if there is one that can be read.
    func active() -> SignedEdit? {
        guard let sequence = state.edit else { return nil }
        return try? SignedEdit(storedAt: files(of: sequence).edit)
    }

    /// Remember what the cloud was told and answered with an edit, for the gate.
    func told(_ envelope: ObservationEnvelope) throws(StorageError) {
        try DurableFile.write(envelope.encoded(), to: toldFile)
    }

    /// What the cloud was last told with this bundle.
    func lastTold(_ spec: ObservationSpec) -> WindowObservation? {
        guard let data = try? Data(contentsOf: toldFile),
            let envelope = try? ObservationEnvelope(decoding: data, spec: spec),
            envelope.bundle == state.bundle
        else { return nil }
        return envelope.observation
    }

    private var toldFile: URL { folder.appending(path: Self.toldName) }

    private func files(of sequence: Int64) -> (edit: URL, signature: URL) {
        let name = "edit-\(sequence).safetensors"
        return (folder.appending(path: name), folder.appending(path: "\(name).sig"))
    }

    private func save(_ next: DeviceState) throws(StorageError) {
        try DurableFile.write(next.encoded(), to: folder.appending(path: Self.stateName))
        state = next
    }

    /// Remove edits that are not active, and unfinished files as being killed leaves them.
    private func sweep() {
        let kept = state.edit.map { files(of: $0) }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        for name in names {
            let isEdit = name.hasPrefix("edit-") && name.contains(".safetensors")
            let isUnfinished = [
                ".edit-", ".\(Self.stateName).", ".\(Self.toldName).", ".\(LearnedKeys.fileName).",
            ].contains { name.hasPrefix($0) }
            let isKept = [kept?.edit, kept?.signature].contains { $0?.lastPathComponent == name }
            if isUnfinished || (isEdit && !isKept) {
                unlink(folder.appending(path: name).path)
            }
        }
    }
}

extension SignedEdit {
    /// An edit as it lies in a file, with its signature beside it in `NAME.sig`.
    public init(storedAt file: URL) throws {
        let place = file.deletingLastPathComponent().appending(
            path: "\(file.lastPathComponent).sig")
        guard let stored = StoredSignature(decoding: try Data(contentsOf: place)) else {
            throw FormatError(.editBadSignature, "\(place.lastPathComponent) is no signature")
        }
        self.init(data: try Data(contentsOf: file), signature: stored.signature)
    }
}
