/// A result as JSON: `persona.report/1`, which holds the record that the cloud takes, what it
/// leaves out, and the same figures in the list form that ExecuTorch's own benchmarks print.

import Foundation

extension BenchmarkResult {
    public static let format = "persona.report/1"

    public func document() -> JSONValue {
        .object([
            JSONMember("format", .string(Self.format)),
            JSONMember("id", .string(id.uuidString)),
            JSONMember("label", .string(label)),
            JSONMember("started_at", .string(Timestamp.format(startedAt))),
            JSONMember("measurement", measurement.document()),
            JSONMember("loads", .array(loads.map(Self.document))),
            JSONMember("placement", document(placement)),
            JSONMember("memory_bytes", memoryBytes.map(JSONValue.whole) ?? .null),
            JSONMember(
                "thermal",
                .object([
                    JSONMember("before", .string(thermalBefore.rawValue)),
                    JSONMember("after", .string(thermalAfter.rawValue)),
                ])
            ),
            JSONMember("invalid", .array(invalidReasons.map { .string($0.message) })),
            JSONMember("base_us", .array(baseMicroseconds.map(JSONValue.real))),
            JSONMember("edited_us", .array(editedMicroseconds.map(JSONValue.real))),
            JSONMember("benchmarks", .array(metrics.map(document))),
        ])
    }

    private var invalidReasons: [InvalidReason] {
        guard case .invalid(let reasons) = validity else { return [] }
        return reasons
    }

    private static func document(_ load: TimedLoad) -> JSONValue {
        .object([
            JSONMember("kind", .string(load.kind.rawValue)),
            JSONMember("ms", .real(load.milliseconds)),
        ])
    }

    private func document(_ placement: Placement) -> JSONValue {
        .object([
            JSONMember("summary", .string(placement.summary)),
            JSONMember(
                "processors",
                .array(
                    placement.processors.map { share in
                        .object([
                            JSONMember("processor", .string(share.processor.rawValue)),
                            JSONMember("operators", .whole(share.operators)),
                            JSONMember("cost", share.cost.map(JSONValue.real) ?? .null),
                        ])
                    }
                )
            ),
        ])
    }

    /// Name and value, times in milliseconds as ExecuTorch's benchmark has them.
    private var metrics: [(String, Double)] {
        var metrics = loads.map { ("\($0.kind.rawValue)_load_time(ms)", $0.milliseconds) }
        for (name, calls) in [("base", baseMicroseconds), ("edited", editedMicroseconds)] {
            let milliseconds = calls.map { $0 / 1e3 }
            metrics += [
                ("\(name)_avg_inference_latency(ms)", Statistics.mean(milliseconds)),
                (
                    "\(name)_trimmean_inference_latency(ms)",
                    Statistics.trimmedMean(milliseconds, share: 0.1)
                ),
                ("\(name)_std_inference_latency(ms)", Statistics.standardDeviation(milliseconds)),
                ("\(name)_p50_inference_latency(ms)", Statistics.quantile(milliseconds, 0.5)),
                ("\(name)_p90_inference_latency(ms)", Statistics.quantile(milliseconds, 0.9)),
                ("\(name)_p95_inference_latency(ms)", Statistics.quantile(milliseconds, 0.95)),
                ("\(name)_p99_inference_latency(ms)", Statistics.quantile(milliseconds, 0.99)),
                ("\(name)_iterations", Double(calls.count)),
            ]
        }
        if let memoryBytes { metrics.append(("memory(bytes)", Double(memoryBytes))) }
        return metrics
    }

    private func document(_ metric: (String, Double)) -> JSONValue {
        .object([
            JSONMember(
                "benchmarkModel",
                .object([
                    JSONMember("name", .string(measurement.model)),
                    JSONMember("backend", .string(measurement.target)),
                    JSONMember("quantization", .string(measurement.precision)),
                ])
            ),
            JSONMember("metric", .string(metric.0)),
            JSONMember("actualValue", .real(metric.1)),
            JSONMember("targetValue", .real(0)),
            JSONMember(
                "deviceInfo",
                .object([
                    JSONMember("device", .string(measurement.host.machine)),
                    JSONMember("os", .string(measurement.host.system)),
                    JSONMember("thermal", .string(measurement.host.thermal)),
                ])
            ),
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

    /// nil where the document is no report.
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
        try DurableFile.write(result.document().encoded(), to: file)
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

    /// Compare others of the same label with this one.
    public func setBaseline(_ result: StoredResult) throws(StorageError) {
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
