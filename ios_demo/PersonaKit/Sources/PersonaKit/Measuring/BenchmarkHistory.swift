/// Earlier results on this device: the record that the cloud takes, and whether it counts.

import Foundation

extension BenchmarkResult {
    fileprivate func stored() -> JSONValue {
        .object([
            JSONMember("id", .string(id.uuidString)),
            JSONMember("label", .string(label)),
            JSONMember("started_at", .string(Timestamp.format(startedAt))),
            JSONMember("measurement", measurement.document()),
            JSONMember("invalid", .array(validity.reasons.map { .string($0.code) })),
        ])
    }
}

/// A result as it was kept.
public struct StoredResult: Sendable, Identifiable {
    public let id: String
    public let label: String
    public let startedAt: Date
    public let measurement: LatencyMeasurement
    public let isValid: Bool

    /// nil where the document is none.
    init?(document: JSONValue) {
        guard case .string(let id)? = document["id"], case .string(let label)? = document["label"],
            case .string(let started)? = document["started_at"],
            let startedAt = Timestamp.parse(started),
            let measurement = document["measurement"].flatMap(LatencyMeasurement.init(document:)),
            case .array(let reasons)? = document["invalid"]
        else { return nil }
        self.id = id
        self.label = label
        self.startedAt = startedAt
        self.measurement = measurement
        isValid = reasons.isEmpty
    }
}

/// Earlier results, one file each, and which of them others are compared with.
public struct BenchmarkHistory: Sendable {
    private static let baselineName = "baseline.txt"

    private let folder: URL

    public init(folder: URL) throws(StorageError) {
        self.folder = folder
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw StorageError(message: "cannot keep results: \(error.localizedDescription)")
        }
    }

    public func append(_ result: BenchmarkResult) throws(StorageError) {
        let file = folder.appending(path: "\(result.id.uuidString).json")
        try DurableFile.write(result.stored().encoded(), to: file)
    }

    /// The newest first. A file that cannot be read is passed over.
    public func results() -> [StoredResult] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.filter { $0.hasSuffix(".json") && !$0.hasPrefix(".") }
            .compactMap { try? Data(contentsOf: folder.appending(path: $0)) }
            .compactMap { try? StrictJSONReader.parse($0) }
            .compactMap(StoredResult.init(document:))
            .sorted { ($0.startedAt, $0.id) > ($1.startedAt, $1.id) }
    }

    /// The id of the result that others of its label are compared with, where one was chosen.
    public func baseline(of label: String) -> String? {
        let chosen = baselines()
        return results().first { $0.label == label && chosen.contains($0.id) }?.id
    }

    /// Compare others of the same label with this one, if it is valid.
    public func setBaseline(_ result: StoredResult) throws(StorageError) {
        guard result.isValid else { return }
        let others = results().filter { $0.label == result.label }.map(\.id)
        let kept = baselines().subtracting(others).union([result.id])
        try DurableFile.write(
            Data(kept.sorted().joined(separator: "\n").utf8),
            to: folder.appending(path: Self.baselineName)
        )
    }

    private func baselines() -> Set<String> {
        let file = folder.appending(path: Self.baselineName)
        let text = (try? String(contentsOf: file, encoding: .utf8)) ?? ""
        return Set(text.split(separator: "\n").map(String.init))
    }
}
