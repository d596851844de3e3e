/// Results as ExecuTorch's minibench writes them, one object a figure, so that its tools read them.
/// What it has no place for stands in `extra`, the same for all figures of a run. The Android demo
/// writes the same names and units.

import Foundation

extension BenchmarkResult {
    /// The figures of these results, in one list.
    public static func report(_ results: [BenchmarkResult]) -> JSONValue {
        .array(results.flatMap(\.documents))
    }

    private var documents: [JSONValue] {
        let extra = extra
        return figures.map { metric, value in
            .object([
                JSONMember(
                    "benchmarkModel",
                    .object([
                        JSONMember("name", .string(measurement.model)),
                        JSONMember("backend", .string(measurement.target)),
                        JSONMember("quantization", .string(measurement.precision)),
                    ])
                ),
                JSONMember("metric", .string(metric)),
                JSONMember("actualValue", .real(value)),
                JSONMember("targetValue", .real(0)),
                JSONMember(
                    "deviceInfo",
                    .object([
                        JSONMember("device", .string(measurement.host.machine)),
                        JSONMember("os", .string(measurement.host.system)),
                        JSONMember("arch", .string(DeviceConditions.architecture)),
                        JSONMember("cores", .whole(measurement.host.cores)),
                    ])
                ),
                JSONMember("extra", extra),
            ])
        }
    }

    /// `pss` is Android's proportional set size; here it is what the system counts against the app.
    private var figures: [(String, Double)] {
        let others: [(String, Double?)] = [
            ("edited_over_base(ratio)", measurement.ratio),
            ("first_ever_load_time(ms)", loads.firstEver),
            ("cold_load_time(ms)", loads.cold),
            ("load_time(ms)", loads.warm),
            ("edit_to_active(ms)", measurement.editToActiveMilliseconds),
            ("pss(mb)", memoryBytes.map { Double($0) / 1_048_576 }),
        ]
        return Self.latencies("base", baseMicroseconds)
            + Self.latencies("edited", editedMicroseconds)
            + others.compactMap { name, value in value.map { (name, $0) } }
    }

    private static func latencies(
        _ name: String, _ microseconds: [Double]
    ) -> [(String, Double)] {
        let calls = microseconds.map { $0 / 1e3 }.sorted()
        return [
            ("avg", Statistics.mean(calls)),
            ("trimmean", Statistics.trimmedMean(calls, share: 0.2)),
            ("std", Statistics.standardDeviation(calls)),
            ("min", calls[0]),
            ("p50", Statistics.quantile(calls, 0.5)),
            ("p90", Statistics.quantile(calls, 0.9)),
            ("p95", Statistics.quantile(calls, 0.95)),
            ("p99", Statistics.quantile(calls, 0.99)),
            ("max", calls[calls.count - 1]),
        ].map { ("\(name).\($0)_inference_latency(ms)", $1) }
    }

    private var extra: JSONValue {
        .object([
            JSONMember("measured_at", .string(Timestamp.format(startedAt))),
            JSONMember("bundle", .string(measurement.bundle)),
            JSONMember("delegates", .array(measurement.delegates.map(JSONValue.string))),
            JSONMember("iterations", .whole(measurement.base.iterations)),
            JSONMember("warm_up", .whole(measurement.base.warmup)),
            JSONMember("threads", .whole(measurement.host.threads)),
            JSONMember("thermal_before", .string(thermalBefore.rawValue)),
            JSONMember("thermal_after", .string(thermalAfter.rawValue)),
            JSONMember("valid", .bool(validity == .valid)),
            JSONMember("invalid_because", .array(validity.reasons.map { .string($0.code) })),
            JSONMember(
                "edit_to_active_ms",
                measurement.editToActiveMilliseconds.map(JSONValue.real) ?? .null
            ),
        ])
    }
}
