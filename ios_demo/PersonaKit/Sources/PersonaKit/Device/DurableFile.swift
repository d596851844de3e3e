/// Files that are there whole or not at all, also when the app is killed or the power is cut.

import Foundation

/// A place that cannot be written to; the message says why and what to do.
public struct StorageError: CodedError, Equatable {
    public let message: String
    public let code = "storage.failed"
}

enum DurableFile {
    /// Replace `url` by `data`: a reader sees the old bytes or the new, never a mixture.
    ///
    /// A temporary file beside it is written and synced, renamed over it, and the folder synced.
    static func write(_ data: Data, to url: URL) throws(StorageError) {
        let folder = url.deletingLastPathComponent()
        let temporary = folder.appending(path: ".\(url.lastPathComponent).\(UUID().uuidString)")
        do {
            try writeSynced(data, to: temporary)
            guard rename(temporary.path, url.path) == 0 else { throw SystemError.last }
            try sync(folder)
        } catch {
            unlink(temporary.path)
            throw StorageError(
                message: "cannot write \(url.lastPathComponent): \(error); free some space and try "
                    + "again"
            )
        }
    }

    /// Only the owner may read what is kept: the token is a secret.
    private static func writeSynced(_ data: Data, to url: URL) throws(SystemError) {
        let descriptor = open(url.path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
        guard descriptor >= 0 else { throw .last }
        defer { close(descriptor) }
        var written = 0
        while written < data.count {
            let count = data.withUnsafeBytes {
                systemWrite(descriptor, $0.baseAddress! + written, data.count - written)
            }
            guard count > 0 else { throw .last }
            written += count
        }
        try flush(descriptor)
    }

    private static func sync(_ folder: URL) throws(SystemError) {
        let descriptor = open(folder.path, O_RDONLY)
        guard descriptor >= 0 else { throw .last }
        defer { close(descriptor) }
        try flush(descriptor)
    }

    /// On Apple's systems `fsync` leaves bytes in the drive's cache; `F_FULLFSYNC` does not.
    private static func flush(_ descriptor: Int32) throws(SystemError) {
        #if canImport(Darwin)
            if fcntl(descriptor, F_FULLFSYNC) == 0 { return }
        #endif
        guard fsync(descriptor) == 0 else { throw .last }
    }
}

/// What the system says of its last failure.
private struct SystemError: Error, CustomStringConvertible {
    let number: Int32

    static var last: SystemError { SystemError(number: errno) }

    var description: String { String(cString: strerror(number)) }
}

/// The system's own `write`, which `DurableFile.write` hides.
private func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer, _ count: Int) -> Int {
    write(descriptor, bytes, count)
}
