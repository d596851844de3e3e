// What the app remembers of its cloud: where it is, which bundle came from it, and whose it was.

import Foundation
import PersonaKit

struct Connection: Codable, Hashable {
    /// nil for the bundle in the app.
    var cloud: URL?
    /// The bundle's folder, by the digest of its manifest.
    var bundle: String
    /// The public key that somebody trusted, in DER. Its key documents may have led on from it.
    var publisherKey: Data

    /// Its id.
    var publisher: String { KeyRing.id(of: publisherKey) }

    private static func file(in folder: URL) -> URL {
        folder.appending(path: "connection.json")
    }

    static func load(from folder: URL) -> Connection? {
        guard let data = try? Data(contentsOf: file(in: folder)) else { return nil }
        return try? JSONDecoder().decode(Connection.self, from: data)
    }

    func save(in folder: URL) throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try JSONEncoder().encode(self).write(to: Self.file(in: folder), options: .atomic)
    }

    static func forget(in folder: URL) {
        try? FileManager.default.removeItem(at: file(in: folder))
    }
}
