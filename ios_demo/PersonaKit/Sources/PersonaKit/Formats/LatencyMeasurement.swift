/// The measurement record `persona.measurement/1`: what a device measured, and under which terms.
///
/// A latency without its program, processor, counts and thermal state is not a result. The cloud
/// decodes it strictly, so these are its fields and no others.

import Foundation

/// Microseconds a forward call: quantiles over `iterations` after `warmup` calls.
public struct Latency: Sendable, Equatable {
    public let iterations: Int
    public let warmup: Int
    public let p50: Double
    public let p90: Double
    public let p99: Double
    public let mean: Double

    public init(iterations: Int, warmup: Int, p50: Double, p90: Double, p99: Double, mean: Double) {
        self.iterations = iterations
        self.warmup = warmup
        self.p50 = p50
        self.p90 = p90
        self.p99 = p99
        self.mean = mean
    }

    /// Summarise single calls, one or more.
    public init(microseconds: [Double], warmup: Int) {
        self.init(
            iterations: microseconds.count, warmup: warmup,
            p50: Statistics.quantile(microseconds, 0.5),
            p90: Statistics.quantile(microseconds, 0.9),
            p99: Statistics.quantile(microseconds, 0.99),
            mean: Statistics.mean(microseconds)
        )
    }

    func document() -> JSONValue {
        .object([
            JSONMember("iterations", .whole(iterations)), JSONMember("warmup", .whole(warmup)),
            JSONMember("p50_us", .real(p50)), JSONMember("p90_us", .real(p90)),
            JSONMember("p99_us", .real(p99)), JSONMember("mean_us", .real(mean)),
        ])
    }

    init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object([
            "iterations", "warmup", "p50_us", "p90_us", "p99_us", "mean_us",
        ])
        self.init(
            iterations: try object["iterations"].whole(), warmup: try object["warmup"].whole(),
            p50: try object["p50_us"].real(), p90: try object["p90_us"].real(),
            p99: try object["p99_us"].real(), mean: try object["mean_us"].real()
        )
    }
}

/// Where it was measured. `thermal`: as the platform names it, or `unknown`.
public struct MeasuredHost: Sendable, Equatable {
    public let system: String
    public let machine: String
    public let cores: Int
    public let threads: Int
    public let thermal: String

    public init(system: String, machine: String, cores: Int, threads: Int, thermal: String) {
        self.system = system
        self.machine = machine
        self.cores = cores
        self.threads = threads
        self.thermal = thermal
    }

    func document() -> JSONValue {
        .object([
            JSONMember("system", .string(system)), JSONMember("machine", .string(machine)),
            JSONMember("cores", .whole(cores)), JSONMember("threads", .whole(threads)),
            JSONMember("thermal", .string(thermal)),
        ])
    }

    init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object(["system", "machine", "cores", "threads", "thermal"])
        self.init(
            system: try object["system"].string(), machine: try object["machine"].string(),
            cores: try object["cores"].whole(), threads: try object["threads"].whole(),
            thermal: try object["thermal"].string()
        )
    }
}

/// Base against edited, interleaved in one run, with the times around an edit.
public struct LatencyMeasurement: Sendable, Equatable {
    public static let format = "persona.measurement/1"

    public let model: String
    public let bundle: String
    public let target: String
    public let precision: String
    /// What really ran: a delegate or a processor each.
    public let delegates: [String]
    public let host: MeasuredHost
    /// The same model without slots, or without deltas.
    public let base: Latency
    public let edited: Latency
    /// Edited p50 ÷ base p50.
    public let ratio: Double
    /// Reading a program and making its method ready, milliseconds.
    public let loadMilliseconds: Double
    /// From an edit's bytes in hand to the probe passed, milliseconds.
    public let editToActiveMilliseconds: Double?

    public init(
        model: String, bundle: String, target: String, precision: String, delegates: [String],
        host: MeasuredHost, base: Latency, edited: Latency, loadMilliseconds: Double,
        editToActiveMilliseconds: Double?
    ) {
        self.model = model
        self.bundle = bundle
        self.target = target
        self.precision = precision
        self.delegates = delegates
        self.host = host
        self.base = base
        self.edited = edited
        ratio = edited.p50 / base.p50
        self.loadMilliseconds = loadMilliseconds
        self.editToActiveMilliseconds = editToActiveMilliseconds
    }

    public func document() -> JSONValue {
        .object([
            JSONMember("format", .string(Self.format)), JSONMember("model", .string(model)),
            JSONMember("bundle", .string(bundle)), JSONMember("target", .string(target)),
            JSONMember("precision", .string(precision)),
            JSONMember("delegates", .array(delegates.map(JSONValue.string))),
            JSONMember("host", host.document()), JSONMember("base", base.document()),
            JSONMember("edited", edited.document()), JSONMember("ratio", .real(ratio)),
            JSONMember("load_ms", .real(loadMilliseconds)),
            JSONMember("edit_to_active_ms", editToActiveMilliseconds.map(JSONValue.real) ?? .null),
        ])
    }

    /// nil where the document is none.
    public init?(document: JSONValue) {
        try? self.init(JSONField(value: document, path: "measurement"))
    }

    private init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object([
            "format", "model", "bundle", "target", "precision", "delegates", "host", "base",
            "edited", "ratio", "load_ms", "edit_to_active_ms",
        ])
        guard try object["format"].string().isExactly(Self.format) else {
            throw object["format"].fault("expected '\(Self.format)'")
        }
        var delegates: [String] = []
        for delegate in try object["delegates"].list() {
            delegates.append(try delegate.string())
        }
        self.init(
            model: try object["model"].string(), bundle: try object["bundle"].string(),
            target: try object["target"].string(), precision: try object["precision"].string(),
            delegates: delegates, host: try MeasuredHost(object["host"]),
            base: try Latency(object["base"]), edited: try Latency(object["edited"]),
            loadMilliseconds: try object["load_ms"].real(),
            editToActiveMilliseconds: try object.optional("edit_to_active_ms")?.real()
        )
    }
}
