/// Tells first-ever, cold and warm loads apart, across starts of the app.

import Foundation

public enum LoadKind: String, Sendable, CaseIterable {
    /// The first of this program on this system: Core ML compiles it for the device.
    case firstEver = "first-ever"
    /// The first since the app started.
    case cold
    /// Loaded before since the app started.
    case warm
}

public struct TimedLoad: Sendable, Equatable {
    public let kind: LoadKind
    public let milliseconds: Double

    public init(kind: LoadKind, milliseconds: Double) {
        self.kind = kind
        self.milliseconds = milliseconds
    }
}

/// Remembers what was loaded, in a file and in this process.
public actor LoadLedger {
    private let file: URL
    private let system: String
    private var ever: Set<String>
    private var sinceStart: Set<String> = []

    /// The system's version belongs to what is remembered: an update loses its compiled programs.
    public init(folder: URL) {
        self.init(folder: folder, system: ProcessInfo.processInfo.operatingSystemVersionString)
    }

    init(folder: URL, system: String) {
        file = folder.appending(path: "loads.txt")
        self.system = system
        let text = (try? String(contentsOf: file, encoding: .utf8)) ?? ""
        ever = Set(text.split(separator: "\n").map(String.init))
    }

    /// What kind the next load of this key is; from then on it counts as loaded.
    func next(_ key: String, bundle: String) throws(StorageError) -> LoadKind {
        let entry = "\(bundle) \(system) \(key)"
        defer { sinceStart.insert(entry) }
        if sinceStart.contains(entry) { return .warm }
        if !ever.insert(entry).inserted { return .cold }
        do {
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true
            )
        } catch {
            throw StorageError(message: "cannot remember loads: \(error.localizedDescription)")
        }
        try DurableFile.write(Data(ever.sorted().joined(separator: "\n").utf8), to: file)
        return .firstEver
    }
}
