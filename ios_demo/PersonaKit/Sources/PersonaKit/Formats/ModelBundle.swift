/// Bundles on disk: verified file by file, and only then used.
///
/// Specified in docs/edit-format.md, "Verifying a bundle". Golden vectors are run by whoever has an
/// engine: `LiveModel` does before anything else.

import Foundation

/// Whose word a bundle has.
public enum BundleSigner: Sendable, Equatable {
    /// A key that the app pins.
    case pinned
    /// The key in `manifest.sig` itself: the files belong together, but nothing says who made them.
    case enclosed
}

/// A verified bundle. `digest` names it in edits and observations.
public struct ModelBundle: Sendable {
    public let folder: URL
    public let manifest: Manifest
    public let digest: String
    let signingKey: P256PublicKey
    public let signer: BundleSigner
    public let base: SlotTensors
    public let prototypes: Prototypes
    public let golden: Golden
    /// The keys that may sign edits for this bundle.
    public let editKeys: KeyRing

    /// The public key that signed it, in DER.
    public var publicKey: Data { signingKey.der }

    /// Id of the key that signed it.
    public var keyID: String { KeyRing.id(of: publicKey) }

    /// The key that signed it, alone: enough to follow that publisher, not to know who it is.
    var signerKeys: KeyRing { KeyRing([ExactName(keyID): signingKey]) }

    /// Read and verify a bundle's folder: signature, every file, slots, prototypes, golden vectors.
    ///
    /// `trusting`: the publisher's keys that the app pins; nil takes the key in `manifest.sig`.
    public static func open(
        at folder: URL, trusting pinned: KeyRing?
    ) throws(FormatError) -> ModelBundle {
        let manifestData = try read(folder, Manifest.fileName)
        let signature = try read(folder, Manifest.signatureName)
        let (manifest, signingKey) = try verifySigned(
            manifest: manifestData, signature: signature, trusting: pinned
        )
        try check(manifest.files, found: digests(in: folder))
        let editKeys: KeyRing
        do {
            editKeys = try KeyRing(publicKeys: manifest.editKeys.map(\.publicKey))
        } catch {
            throw FormatError(.bundleManifestInvalid, "edit_keys: \(error.message)")
        }
        return ModelBundle(
            folder: folder, manifest: manifest, digest: sha256(manifestData),
            signingKey: signingKey, signer: pinned == nil ? .enclosed : .pinned,
            base: try readBase(try read(folder, manifest.base), slots: manifest.slots),
            prototypes: try readPrototypes(
                try read(folder, manifest.prototypes), slots: manifest.slots,
                count: manifest.prototypeCount, width: manifest.observation.width
            ),
            golden: try readGolden(
                try read(folder, manifest.golden), slots: manifest.slots, inputs: manifest.inputs,
                output: manifest.outputs[0], observation: manifest.observation,
                prototypeCount: manifest.prototypeCount
            ),
            editKeys: editKeys
        )
    }

    /// The manifest and the public key that signed it, from the bytes of the two files.
    static func verifySigned(
        manifest: Data, signature: Data, trusting pinned: KeyRing?
    ) throws(FormatError) -> (Manifest, P256PublicKey) {
        guard let stored = StoredSignature(decoding: signature) else {
            throw FormatError(
                .bundleBadSignature,
                "\(Manifest.signatureName) cannot be read; copy the bundle again"
            )
        }
        let keys: KeyRing
        do {
            keys = try pinned ?? KeyRing(publicKeys: stored.publicKey.map { [$0] } ?? [])
        } catch {
            throw FormatError(
                .bundleBadSignature, "\(Manifest.signatureName): \(error); copy the bundle again"
            )
        }
        let read = try Manifest(verifying: manifest, signature: stored.signature, keys: keys)
        return (read, keys[stored.signature.keyID]!)
    }

    /// What an edit for this device must be.
    public func expectation(device: String, sequence: Int64) -> EditExpectation {
        EditExpectation(
            model: manifest.model, bundle: digest, device: device, sequence: sequence,
            slots: manifest.slots, prototypeCount: manifest.prototypeCount,
            probeShape: golden.base[0].shape, maxBytes: manifest.maxEditBytes
        )
    }

    /// Compare the files that are there (all but manifest and signature) with the manifest's.
    static func check(
        _ wanted: [String: BundleFile], found: [ExactName: BundleFile]
    ) throws(FormatError) {
        let paths = wanted.keys.map { ExactName($0) }.sorted()
        let missing = paths.filter { found[$0] == nil }.map(\.text)
        guard missing.isEmpty else {
            throw FormatError(
                .bundleFileMissing,
                "\(missing.joined(separator: ", ")) is missing; copy or export the bundle again"
            )
        }
        for path in paths where found[path] != wanted[path.text] {
            throw FormatError(
                .bundleFileChanged,
                "\(path) must have \(wanted[path.text]!.size) bytes and its sha256, got "
                    + "\(found[path]!.size) bytes; copy the bundle again"
            )
        }
        let unlisted = Set(found.keys).subtracting(paths).sorted().map(\.text)
        guard unlisted.isEmpty else {
            throw FormatError(
                .bundleFileUnlisted,
                "\(unlisted.joined(separator: ", ")) is not in the manifest; remove it, or export "
                    + "again"
            )
        }
    }

    private static func read(_ folder: URL, _ name: String) throws(FormatError) -> Data {
        do {
            return try Data(contentsOf: folder.appending(path: name))
        } catch {
            throw FormatError(
                .bundleFileMissing,
                "\(folder.path) has no readable \(name): expected a bundle folder made by "
                    + "`persona export`"
            )
        }
    }

    private static func digests(in folder: URL) throws(FormatError) -> [ExactName: BundleFile] {
        var found: [ExactName: BundleFile] = [:]
        for path in FileManager.default.enumerator(atPath: folder.path) ?? .init() {
            guard let path = path as? String, isFile(folder.appending(path: path)),
                path != Manifest.fileName, path != Manifest.signatureName
            else { continue }
            let data = try read(folder, path)
            found[ExactName(path)] = BundleFile(size: data.count, sha256: sha256(data))
        }
        return found
    }

    private static func isFile(_ url: URL) -> Bool {
        var isFolder: ObjCBool = false
        return FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder)
            && !isFolder.boolValue
    }
}
