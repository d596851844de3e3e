/// A bundle from the cloud: verified before it is used, there whole or not at all, resumed where it
/// was left.

import Foundation

extension CloudClient {
    /// Fetch a model's bundle into `folder`, which afterwards is the verified bundle.
    ///
    /// The manifest and its signature are fetched and verified first, then every file that is not
    /// yet there with its sha256, into a folder beside; that becomes `folder` when all is verified.
    /// `progress`: share of the bytes, 0 to 1.
    public func downloadBundle(
        _ model: String, to folder: URL, trusting pinned: KeyRing?,
        progress: @Sendable (Double) -> Void = { _ in }
    ) async throws -> ModelBundle {
        let staging = folder.deletingLastPathComponent()
            .appending(path: ".\(folder.lastPathComponent).partial")
        let manifestData = try await bundleFile(Manifest.fileName, of: model)
        let signature = try await bundleFile(Manifest.signatureName, of: model)
        let (manifest, _) = try ModelBundle.verifySigned(
            manifest: manifestData, signature: signature, trusting: pinned
        )
        if let there = try? ModelBundle.open(at: folder, trusting: pinned),
            there.digest == sha256(manifestData)
        {
            return there
        }
        try prepare(staging, for: manifest)
        let all = manifest.files.values.reduce(0) { $0 + $1.size }
        var done = 0
        for (path, file) in manifest.files.sorted(by: { $0.key < $1.key }) {
            try Task.checkCancellation()
            let place = staging.appending(path: path)
            if !file.matches(try? Data(contentsOf: place)) {
                let data = try await bundleFile(path, of: model)
                guard file.matches(data) else {
                    throw FormatError(
                        .bundleFileChanged, "\(path) came with other bytes; fetch the bundle again"
                    )
                }
                try write(data, to: place)
            }
            done += file.size
            progress(Double(done) / Double(max(all, 1)))
        }
        try write(signature, to: staging.appending(path: Manifest.signatureName))
        try write(manifestData, to: staging.appending(path: Manifest.fileName))
        _ = try ModelBundle.open(at: staging, trusting: pinned)
        try replace(folder, by: staging)
        return try ModelBundle.open(at: folder, trusting: pinned)
    }

    /// Keep what an earlier attempt fetched of this manifest, and nothing else.
    private func prepare(_ staging: URL, for manifest: Manifest) throws(StorageError) {
        let files = FileManager.default
        do {
            try files.createDirectory(at: staging, withIntermediateDirectories: true)
            for path in files.enumerator(atPath: staging.path) ?? .init() {
                guard let path = path as? String else { continue }
                var isFolder: ObjCBool = false
                let place = staging.appending(path: path)
                let isThere = files.fileExists(atPath: place.path, isDirectory: &isFolder)
                if isThere, !isFolder.boolValue, manifest.files[path] == nil {
                    try files.removeItem(at: place)
                }
            }
        } catch {
            throw StorageError(message: "cannot write a bundle: \(error.localizedDescription)")
        }
    }

    private func write(_ data: Data, to place: URL) throws(StorageError) {
        do {
            try FileManager.default.createDirectory(
                at: place.deletingLastPathComponent(), withIntermediateDirectories: true
            )
        } catch {
            throw StorageError(message: "cannot write a bundle: \(error.localizedDescription)")
        }
        try DurableFile.write(data, to: place)
    }

    private func replace(_ folder: URL, by staging: URL) throws(StorageError) {
        let files = FileManager.default
        let older = folder.deletingLastPathComponent()
            .appending(path: ".\(folder.lastPathComponent).older")
        do {
            try? files.removeItem(at: older)
            if files.fileExists(atPath: folder.path) {
                try files.moveItem(at: folder, to: older)
            }
            try files.moveItem(at: staging, to: folder)
            try? files.removeItem(at: older)
        } catch {
            if !files.fileExists(atPath: folder.path) {
                try? files.moveItem(at: older, to: folder)
            }
            throw StorageError(message: "cannot keep a bundle: \(error.localizedDescription)")
        }
    }
}

extension BundleFile {
    fileprivate func matches(_ data: Data?) -> Bool {
        guard let data else { return false }
        return data.count == size && PersonaKit.sha256(data) == sha256
    }
}
