/// The observation `persona.observation/1`: what a device uploads about its window, and no more.
///
/// Either the ids of the window's items, or statistics pooled over the window on the device: raw
/// samples never leave it. JSON for people, safetensors for phones; both say the same. Specified in
/// docs/edit-format.md, "Observation".

import Foundation

/// Statistics over samples: `features` values a sample, `classes` in its posterior.
public struct PooledSpec: Sendable, Equatable {
    public let features: Int
    public let classes: Int
    public let minCount: Int
    public let maxCount: Int
    /// Class frequencies that the backbone was trained with, for the prior's estimate.
    public let trainingMass: [Double]
}

/// Ids of the last items, oldest first, each from 1 to `vocabulary`.
public struct ItemsSpec: Sendable, Equatable {
    public let vocabulary: Int
    public let minCount: Int
    public let maxCount: Int
}

public enum ObservationSpec: Sendable, Equatable {
    case items(ItemsSpec)
    case pooled(PooledSpec)

    public var minCount: Int {
        switch self {
        case .items(let spec): spec.minCount
        case .pooled(let spec): spec.minCount
        }
    }

    public var maxCount: Int {
        switch self {
        case .items(let spec): spec.maxCount
        case .pooled(let spec): spec.maxCount
        }
    }

    /// Length of the observation as one vector.
    public var width: Int {
        switch self {
        case .items(let spec):
            spec.vocabulary + 1
        case .pooled(let spec):
            2 * spec.features + 2 * spec.classes + spec.classes * spec.features
        }
    }

    init(_ field: JSONField) throws(SchemaError) {
        let kind = try field.members().first { $0.key == "kind" }?.field.string()
        let low: Int
        let high: Int
        switch kind.map({ ExactName($0) }) {
        case "items":
            let object = try field.object(["kind", "vocabulary", "min_count", "max_count"])
            low = try object["min_count"].whole(from: 1)
            high = try object["max_count"].whole(from: low)
            let vocabulary = try object["vocabulary"].whole(from: 1)
            self = .items(ItemsSpec(vocabulary: vocabulary, minCount: low, maxCount: high))
        case "pooled":
            let object = try field.object([
                "kind", "features", "classes", "min_count", "max_count", "training_mass",
            ])
            low = try object["min_count"].whole(from: 1)
            high = try object["max_count"].whole(from: low)
            let features = try object["features"].whole(from: 1)
            let classes = try object["classes"].whole(from: 1)
            var mass: [Double] = []
            for element in try object["training_mass"].list() {
                mass.append(try element.real())
            }
            guard mass.count == classes, mass.allSatisfy({ $0 > 0 }) else {
                throw object["training_mass"].fault("must be \(classes) numbers above 0")
            }
            guard wholeProduct([8, features, classes]) != nil else {
                throw field.fault("statistics of this size cannot be held")
            }
            self = .pooled(
                PooledSpec(
                    features: features, classes: classes, minCount: low, maxCount: high,
                    trainingMass: mass
                )
            )
        default:
            throw field.fault("kind: expected 'items' or 'pooled'")
        }
    }
}

/// Pooled statistics of `count` samples.
public struct PooledObservation: Sendable, Equatable {
    public let count: Int
    /// [features], over the window.
    public let mean: FloatTensor
    /// [features], of the window's samples from `mean`.
    public let deviation: FloatTensor
    /// [classes]: the mean posterior.
    public let classMass: FloatTensor
    /// [classes]: the class mix of the window, by expectation maximisation.
    public let classPrior: FloatTensor
    /// [classes, features]: means weighted by the posterior.
    public let classMean: FloatTensor

    /// The statistics in the contract's order.
    fileprivate var statistics: [(name: String, tensor: FloatTensor)] {
        [
            ("mean", mean), ("deviation", deviation), ("class_mass", classMass),
            ("class_prior", classPrior), ("class_mean", classMean),
        ]
    }
}

public enum WindowObservation: Sendable, Equatable {
    /// Item ids, oldest first.
    case items([Int64])
    case pooled(PooledObservation)

    public static let format = "persona.observation/1"
    public static let mediaType = "application/vnd.persona.observation+safetensors"

    public var count: Int {
        switch self {
        case .items(let items): items.count
        case .pooled(let statistics): statistics.count
        }
    }

    /// What linear rules take, in binary32: pooled statistics one after another, or the share of
    /// each item id in the window, [spec.width].
    public func vector(_ spec: ObservationSpec) -> [Float] {
        switch self {
        case .pooled(let observation):
            return observation.statistics.flatMap(\.tensor.values)
        case .items(let items):
            var counts = [Float](repeating: 0, count: spec.width)
            for item in items {
                counts[Int(item)] += 1
            }
            return counts.map { $0 / Float(items.count) }
        }
    }
}

/// An observation with its addressee: the bundle (sha256 of the manifest) that it was made with.
public struct ObservationEnvelope: Sendable, Equatable {
    public let bundle: String
    public let observation: WindowObservation

    public init(bundle: String, observation: WindowObservation) {
        self.bundle = bundle
        self.observation = observation
    }
}

extension WindowObservation {
    /// The observation of item ids, oldest first; of a longer window the newest.
    public init(items: [Int64], spec: ItemsSpec) throws(FormatError) {
        self = .items(Array(items.suffix(spec.maxCount)))
        try check(.items(spec))
    }

    /// Pool features [n, features] and class posteriors [n, classes] of a window.
    public init(
        pooling features: FloatTensor, posterior: FloatTensor, spec: PooledSpec
    ) throws(FormatError) {
        let count = features.shape.first ?? 0
        try Self.checkCount(.pooled(spec), count)
        guard features.shape == [count, spec.features], posterior.shape == [count, spec.classes]
        else {
            throw FormatError(
                .observationWidth,
                "features and posterior must have shapes \([count, spec.features]) and "
                    + "\([count, spec.classes]), got \(features.shape) and \(posterior.shape); "
                    + "are they from this bundle's program?"
            )
        }
        for (name, tensor) in [("features", features), ("posterior", posterior)]
        where !tensor.values.allSatisfy(\.isFinite) {
            throw FormatError(
                .observationNotFinite, "\(name) hold NaN or infinity; check the inputs"
            )
        }
        let p = rows(of: posterior)
        guard p.allSatisfy({ row in row.allSatisfy { $0 >= 0 } && row.contains { $0 > 0 } }) else {
            throw FormatError(
                .observationInvalid,
                "each sample's posterior must be 0 or more, and above 0 for a class; apply softmax"
            )
        }
        self = .pooled(pool(rows(of: features), p, spec))
        try check(.pooled(spec))
    }

    /// Whether this is what the bundle asks for.
    public func check(_ spec: ObservationSpec) throws(FormatError) {
        switch (spec, self) {
        case (.items(let wanted), .items(let items)):
            try Self.checkCount(spec, items.count)
            guard items.allSatisfy({ 1...Int64(wanted.vocabulary) ~= $0 }) else {
                throw FormatError(
                    .observationInvalid,
                    "item ids must be 1 to \(wanted.vocabulary), got "
                        + "\(items.min() ?? 0) to \(items.max() ?? 0)"
                )
            }
        case (.pooled(let wanted), .pooled(let observation)):
            try Self.checkCount(spec, observation.count)
            let (f, c) = (wanted.features, wanted.classes)
            for (statistic, shape) in zip(observation.statistics, [[f], [f], [c], [c], [c, f]]) {
                guard statistic.tensor.shape == shape else {
                    throw FormatError(
                        .observationWidth,
                        "\(statistic.name) must have shape \(shape), got "
                            + "\(statistic.tensor.shape); is it made with this bundle's observe "
                            + "program?"
                    )
                }
                guard statistic.tensor.values.allSatisfy(\.isFinite) else {
                    throw FormatError(
                        .observationNotFinite,
                        "\(statistic.name) holds NaN or infinity; check the inputs"
                    )
                }
            }
        case (.items, .pooled):
            throw FormatError(.observationInvalid, "expected item ids, got pooled statistics")
        case (.pooled, .items):
            throw FormatError(.observationInvalid, "expected pooled statistics, got item ids")
        }
    }

    private static func checkCount(_ spec: ObservationSpec, _ count: Int) throws(FormatError) {
        guard count >= spec.minCount else {
            throw FormatError(
                .observationEmpty,
                "the window has \(count) samples, at least \(spec.minCount) are needed"
            )
        }
        guard count <= spec.maxCount else {
            throw FormatError(
                .observationTooLong,
                "the window has \(count) samples, at most \(spec.maxCount) fit; send the newest"
            )
        }
    }
}

private func rows(of tensor: FloatTensor) -> [[Double]] {
    let width = tensor.shape[1]
    return (0..<tensor.shape[0]).map { row in
        tensor.values[row * width..<(row + 1) * width].map(Double.init)
    }
}

/// All in binary64, rounded at the end.
///
///     mean[f]         = Σ_i x[i,f] / n
///     deviation[f]    = sqrt(Σ_i (x[i,f] − mean[f])² / n)
///     class_mass[c]   = Σ_i p[i,c] / n
///     class_mean[c,f] = Σ_i p[i,c] · x[i,f] / (Σ_i p[i,c] + 10⁻⁶)
private func pool(_ x: [[Double]], _ p: [[Double]], _ spec: PooledSpec) -> PooledObservation {
    let n = Double(x.count)
    let mean = columnSums(x, width: spec.features).map { $0 / n }
    let squares = x.map { row in zip(row, mean).map { ($0 - $1) * ($0 - $1) } }
    let deviation = columnSums(squares, width: spec.features).map { ($0 / n).squareRoot() }
    let mass = columnSums(p, width: spec.classes)
    let classMean = (0..<spec.classes).flatMap { c in
        let weighted = zip(x, p).map { row, weights in row.map { weights[c] * $0 } }
        return columnSums(weighted, width: spec.features).map { $0 / (mass[c] + 1e-6) }
    }
    func tensor(_ shape: [Int], _ values: [Double]) -> FloatTensor {
        FloatTensor(shape: shape, values: values.map(Float.init))
    }
    return PooledObservation(
        count: x.count,
        mean: tensor([spec.features], mean),
        deviation: tensor([spec.features], deviation),
        classMass: tensor([spec.classes], mass.map { $0 / n }),
        classPrior: tensor([spec.classes], classPrior(p, trained: spec.trainingMass)),
        classMean: tensor([spec.classes, spec.features], classMean)
    )
}

private func columnSums(_ rows: [[Double]], width: Int) -> [Double] {
    rows.reduce(into: Array(repeating: 0, count: width)) { sums, row in
        for (column, value) in row.enumerated() {
            sums[column] += value
        }
    }
}

/// The class mix of a window by expectation maximisation from posteriors [n, classes] of a model
/// that was trained with other frequencies τ (Saerens, Latinne and Decaestecker, 2002).
private func classPrior(_ posterior: [[Double]], trained: [Double]) -> [Double] {
    var prior = trained
    for _ in 0..<50 {
        let ratio = zip(prior, trained).map { $0 / $1 }
        let adjusted = posterior.map { row in
            let weighted = zip(row, ratio).map { $0 * $1 }
            let sum = weighted.reduce(0, +)
            return weighted.map { $0 / sum }
        }
        let floored = columnSums(adjusted, width: trained.count).map {
            max($0 / Double(posterior.count), 1e-4)
        }
        let sum = floored.reduce(0, +)
        prior = floored.map { $0 / sum }
    }
    return prior
}

extension ObservationEnvelope {
    /// The safetensors form.
    public func encoded() -> Data {
        switch observation {
        case .items(let items):
            let tensor = StoredTensor(IntTensor(shape: [items.count], values: items))
            return SafetensorsContainer(
                metadata: ["format": WindowObservation.format, "bundle": bundle, "kind": "items"],
                tensors: [("items", tensor)]
            ).encoded()
        case .pooled(let pooled):
            return SafetensorsContainer(
                metadata: [
                    "format": WindowObservation.format, "bundle": bundle, "kind": "pooled",
                    "count": String(pooled.count),
                ],
                tensors: pooled.statistics.map { ($0.name, StoredTensor($0.tensor)) }
            ).encoded()
        }
    }

    /// Read and check the safetensors form.
    public init(decoding data: Data, spec: ObservationSpec) throws(FormatError) {
        let container = try SafetensorsContainer(decoding: data)
        try Self.checkFormat(container.metadata["format"])
        let keys = Set(container.metadata.keys)
        let names = Set(container.tensors.keys)
        guard let bundle = container.metadata["bundle"], let kind = container.metadata["kind"]
        else {
            throw Self.invalid("metadata must name the bundle and the kind")
        }
        self.bundle = bundle
        switch ExactName(kind) {
        case "items" where keys == ["format", "bundle", "kind"] && names == ["items"]:
            guard let items = container.tensors["items"]?.integers, items.shape.count == 1 else {
                throw Self.invalid("items must be a list of I64")
            }
            observation = .items(items.values)
        case "pooled"
        where keys == ["format", "bundle", "kind", "count"]
            && names == ["mean", "deviation", "class_mass", "class_prior", "class_mean"]:
            guard let count = EditFile.readWhole(container.metadata["count"]!) else {
                throw Self.invalid("count must be a whole number")
            }
            guard container.tensors.values.allSatisfy({ $0.dtype == .f32 }) else {
                throw Self.invalid("statistics must be F32")
            }
            func statistic(_ name: ExactName) -> FloatTensor { container.tensors[name]!.floats! }
            observation = .pooled(
                PooledObservation(
                    count: Int(count), mean: statistic("mean"), deviation: statistic("deviation"),
                    classMass: statistic("class_mass"), classPrior: statistic("class_prior"),
                    classMean: statistic("class_mean")
                )
            )
        default:
            throw Self.invalid("kind '\(kind)' with these tensors and metadata is none")
        }
        try observation.check(spec)
    }

    /// Read and check the JSON form.
    public init(json: Data, spec: ObservationSpec) throws(FormatError) {
        do {
            let field = JSONField(value: try StrictJSONReader.parse(json), path: "observation")
            let kind = try field.members().first { $0.key == "kind" }?.field.string()
            let common = ["format", "bundle", "kind"]
            let format: String
            switch kind.map({ ExactName($0) }) {
            case "items":
                let object = try field.object(common + ["items"])
                format = try object["format"].string()
                bundle = try object["bundle"].string()
                observation = .items(try object["items"].wholes())
            case "pooled":
                let statistics = ["mean", "deviation", "class_mass", "class_prior", "class_mean"]
                let object = try field.object(common + ["count"] + statistics)
                format = try object["format"].string()
                bundle = try object["bundle"].string()
                observation = .pooled(
                    PooledObservation(
                        count: try object["count"].whole(),
                        mean: try object["mean"].floats(),
                        deviation: try object["deviation"].floats(),
                        classMass: try object["class_mass"].floats(),
                        classPrior: try object["class_prior"].floats(),
                        classMean: try object["class_mean"].floatRows()
                    )
                )
            default:
                throw field.fault("kind: expected 'items' or 'pooled'")
            }
            try Self.checkFormat(format)
            try observation.check(spec)
        } catch let error as FormatError {
            throw error
        } catch let error as SchemaError {
            throw FormatError(.observationInvalid, error.reason)
        } catch let error as StrictJSONError {
            throw FormatError(.observationInvalid, "not JSON: \(error.reason)")
        } catch {
            preconditionFailure("readers throw nothing else: \(error)")
        }
    }

    private static func invalid(_ message: String) -> FormatError {
        FormatError(.observationInvalid, "not an observation: \(message)")
    }

    private static func checkFormat(_ name: String?) throws(FormatError) {
        guard name?.isExactly(WindowObservation.format) == true else {
            throw FormatError(
                .observationInvalid,
                "expected format '\(WindowObservation.format)', got '\(name ?? "none")'"
            )
        }
    }
}

extension JSONField {
    fileprivate func wholes() throws(SchemaError) -> [Int64] {
        var values: [Int64] = []
        for field in try list() {
            values.append(Int64(try field.whole()))
        }
        return values
    }

    /// Numbers as binary64, then rounded to binary32.
    fileprivate func floats() throws(SchemaError) -> FloatTensor {
        var values: [Float] = []
        for field in try list() {
            values.append(Float(try field.real()))
        }
        return FloatTensor(shape: [values.count], values: values)
    }

    /// Rows of one length; `observation.width` where their lengths differ.
    fileprivate func floatRows() throws -> FloatTensor {
        var rows: [FloatTensor] = []
        for field in try list() {
            rows.append(try field.floats())
        }
        let width = rows.first?.values.count ?? 0
        guard rows.allSatisfy({ $0.values.count == width }) else {
            throw FormatError(.observationWidth, "the rows of class_mean must be equally long")
        }
        return FloatTensor(shape: [rows.count, width], values: rows.flatMap(\.values))
    }
}
