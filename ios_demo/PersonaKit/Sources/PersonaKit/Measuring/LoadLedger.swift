/// How long programs take to load: ever, since the app's start, and again.

import Foundation

/// Milliseconds until a program is ready.
public struct LoadTimes: Sendable, Equatable {
    /// The first of this program, for these compute units, on this system: Core ML makes it fit the
    /// device, and compiles its package unless other units had it compiled. nil where not known.
    public let firstEver: Double?
    /// The first since the app's start; nil where that was the first ever.
    public let cold: Double?
    /// The latest of those after it.
    public let warm: Double

    public init(firstEver: Double?, cold: Double?, warm: Double) {
        self.firstEver = firstEver
        self.cold = cold
        self.warm = warm
    }
}

/// Loads programs and remembers how long it took, in a file and in this process. Every load of the
/// app goes through the same one, or a later one is taken for the first.
public actor LoadLedger {
    private let file: URL
    private let system: String
    private var firstEver: [String: Double] = [:]
    private var cold: [String: Double] = [:]
    private var warm: [String: Double] = [:]
    private var sinceStart: Set<String> = []

    /// The system's version belongs to what is remembered: an update loses its compiled programs.
    public init(folder: URL) {
        self.init(folder: folder, system: ProcessInfo.processInfo.operatingSystemVersionString)
    }

    init(folder: URL, system: String) {
        file = folder.appending(path: "loads.txt")
        self.system = system
        let text = (try? String(contentsOf: file, encoding: .utf8)) ?? ""
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ", maxSplits: 1)
            if parts.count == 2, let time = Double(parts[0]) { firstEver[String(parts[1])] = time }
        }
    }

    /// Load a program and keep how long it took.
    public nonisolated func load(
        _ factory: EngineFactory, of bundle: ModelBundle
    ) async throws -> sending any InferenceEngine {
        let clock = ContinuousClock()
        let start = clock.now
        let engine = try await factory.load(bundle)
        let time = start.duration(to: clock.now).milliseconds
        await remember(time, of: factory.key, bundle: bundle.digest)
        return engine
    }

    /// nil until it was loaded twice since the app's start.
    func times(of key: String, bundle: String) -> LoadTimes? {
        let entry = entry(key, bundle)
        return warm[entry].map {
            LoadTimes(firstEver: firstEver[entry], cold: cold[entry], warm: $0)
        }
    }

    func remember(_ time: Double, of key: String, bundle: String) {
        let entry = entry(key, bundle)
        if !sinceStart.insert(entry).inserted {
            warm[entry] = time
        } else if firstEver[entry] != nil {
            cold[entry] = time
        } else {
            firstEver[entry] = time
            write()
        }
    }

    private func entry(_ key: String, _ bundle: String) -> String { "\(bundle) \(system) \(key)" }

    /// A time that cannot be kept is no reason not to run the program.
    private func write() {
        let lines = firstEver.map { "\($0.value) \($0.key)" }.sorted()
        try? FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true
        )
        try? DurableFile.write(Data(lines.joined(separator: "\n").utf8), to: file)
    }
}
