/// The three tensor files of a bundle: base slots, prototypes with their choice, golden vectors.
///
///     prototype = argmax_k( weight · clamp((v − mean) / deviation, ±6) + bias )
///
/// Names, shapes, dtypes, finiteness and bounds are checked against the bundle's slots, ports and
/// observation, so that a device finds out before it runs anything. Specified in
/// docs/edit-format.md, "Tensor files".

import Foundation

/// Each prototype's change, and the linear rule by which a device chooses one.
public struct Prototypes: Sendable, Equatable {
    /// How many deviations from the mean of the training devices still count.
    static let clamp = 6.0

    /// For each prototype `SLOT.SUFFIX` → values, as in an edit.
    public let changes: [SlotTensors]
    /// [width], of the training devices' observation vectors.
    public let mean: FloatTensor
    public let deviation: FloatTensor
    /// [count, width] and [count]: the score of each prototype.
    public let weight: FloatTensor
    public let bias: FloatTensor

    /// The prototype for an observation vector, in binary64; the lowest of equal ones. nil where
    /// the bundle has none.
    public func assign(_ vector: [Float]) -> Int? {
        guard !changes.isEmpty else { return nil }
        let standard = zip(vector, zip(mean.values, deviation.values)).map { value, moments in
            let distance = (Double(value) - Double(moments.0)) / Double(moments.1)
            return min(max(distance, -Self.clamp), Self.clamp)
        }
        let scores = bias.values.enumerated().map { index, bias in
            let row = weight.values[index * standard.count..<(index + 1) * standard.count]
            return zip(row, standard).reduce(0) { $0 + Double($1.0) * $1.1 } + Double(bias)
        }
        return scores.indices.max {
            scores[$0] < scores[$1] || (scores[$0] == scores[$1] && $0 > $1)
        }
    }
}

/// Inputs with the outputs that a program must give for them.
public struct Golden: Sendable, Equatable {
    /// For each golden input, a value for each input port in the manifest's order.
    public let inputs: [[ModelInput]]
    /// Outputs without a change, one for each input.
    public let base: [FloatTensor]
    /// For each prototype, its outputs.
    public let prototypes: [[FloatTensor]]
    /// An example edit, relative to no prototype.
    public let edit: SlotTensors
    public let edited: [FloatTensor]
    /// [1, features] and [1, classes]: what the observe program must give for each input, where the
    /// observation is pooled; else empty.
    public let features: [FloatTensor]
    public let posterior: [FloatTensor]
}

/// A tensor file that is being read.
private struct TensorFile {
    let file: String
    let tensors: [ExactName: StoredTensor]

    init(_ file: String, format: String, _ data: Data) throws(FormatError) {
        self.file = file
        let container = try SafetensorsContainer(
            decoding: data, longestHeader: SafetensorsContainer.longestBundleHeader
        )
        tensors = container.tensors
        guard container.metadata.count == 1,
            container.metadata["format"]?.isExactly(format) == true
        else { throw invalid("expected the metadata format = '\(format)' alone") }
    }

    func invalid(_ message: String) -> FormatError {
        FormatError(
            .bundleTensorsInvalid, "\(file).safetensors: \(message); export the bundle again"
        )
    }

    func expect(_ names: [String]) throws(FormatError) {
        let wanted = Set(names.map { ExactName($0) })
        if let missing = wanted.subtracting(tensors.keys).min() {
            throw invalid("there is no tensor '\(missing)'")
        }
        if let unknown = Set(tensors.keys).subtracting(wanted).min() {
            throw invalid("tensor '\(unknown)' is not one of this bundle's")
        }
    }

    /// F32, or F16 where that may be, of this shape and finite.
    func floats(_ name: String, _ shape: [Int], half: Bool = false) throws(FormatError)
        -> FloatTensor
    {
        let tensor = tensors[ExactName(name)]!
        guard tensor.dtype == .f32 || (half && tensor.dtype == .f16) else {
            throw invalid(
                "'\(name)' must be F32\(half ? " or F16" : ""), got \(tensor.dtype.rawValue)")
        }
        guard tensor.shape == shape else {
            throw invalid("'\(name)' must have shape \(shape), got \(tensor.shape)")
        }
        let values = tensor.floats!
        guard values.values.allSatisfy(\.isFinite) else {
            throw invalid("'\(name)' holds NaN or infinity")
        }
        return values
    }

    /// The value of a port; `free` keeps the sizes of dimensions that the caller chooses.
    func value(
        _ name: String, of port: ModelPort, free: inout [ExactName: Int]
    ) throws(FormatError) -> ModelInput {
        let tensor = tensors[ExactName(name)]!
        let fault = invalid("'\(name)' must have shape \(port.shape), got \(tensor.shape)")
        guard tensor.shape.count == port.shape.count else { throw fault }
        var limits = port.free.makeIterator()
        for (wanted, size) in zip(port.shape, tensor.shape) {
            if wanted == -1, let dimension = limits.next() {
                let name = ExactName(dimension.name)
                guard size >= dimension.min, size <= dimension.max, free[name] ?? size == size
                else {
                    throw fault
                }
                free[name] = size
            } else if wanted != size {
                throw fault
            }
        }
        switch port.dtype {
        case .float32:
            return .float32(try floats(name, tensor.shape))
        case .int64:
            guard let integers = tensor.integers else {
                throw invalid("'\(name)' must be I64, got \(tensor.dtype.rawValue)")
            }
            return .int64(integers)
        }
    }

    func output(
        _ name: String, of port: ModelPort, free: inout [ExactName: Int]
    ) throws(FormatError) -> FloatTensor {
        guard case .float32(let tensor) = try value(name, of: port, free: &free) else {
            throw invalid("outputs must be float32")
        }
        return tensor
    }
}

/// `base.safetensors`: `SLOT.SUFFIX` → what a program's slot holds before any edit.
func readBase(_ data: Data, slots: [Slot]) throws(FormatError) -> SlotTensors {
    let file = try TensorFile("base", format: "persona.base/1", data)
    let wanted = slots.flatMap(\.tensors)
    try file.expect(wanted.map(\.name))
    var base: SlotTensors = [:]
    for tensor in wanted {
        base[tensor.name] = try file.floats(tensor.name, tensor.feedShape)
    }
    return base
}

/// `prototypes.safetensors` of a bundle with `count` prototypes and observations [width].
func readPrototypes(
    _ data: Data, slots: [Slot], count: Int, width: Int
) throws(FormatError) -> Prototypes {
    let file = try TensorFile("prototypes", format: "persona.prototypes/1", data)
    // Before names are made up from a number of the manifest.
    guard count <= file.tensors.count else {
        throw file.invalid("\(file.tensors.count) tensors are too few for \(count) prototypes")
    }
    let wanted = slots.flatMap(\.tensors)
    let rule = ["assign.mean", "assign.deviation", "assign.weight", "assign.bias"]
    let names = (0..<count).flatMap { k in wanted.map { "\(k).\($0.name)" } }
    try file.expect(names + (count == 0 ? [] : rule))
    var changes: [SlotTensors] = []
    for k in 0..<count {
        var change: SlotTensors = [:]
        for tensor in wanted {
            change[tensor.name] = try file.floats("\(k).\(tensor.name)", tensor.shape, half: true)
        }
        changes.append(change)
    }
    for (k, change) in changes.enumerated() {
        for tensor in wanted where change[tensor.name]!.largestMagnitude > tensor.limit {
            throw file.invalid(
                "'\(k).\(tensor.name)' reaches \(change[tensor.name]!.largestMagnitude), above "
                    + "\(tensor.limit)"
            )
        }
    }
    guard count > 0 else {
        let none = FloatTensor.zeros([0])
        return Prototypes(changes: [], mean: none, deviation: none, weight: none, bias: none)
    }
    let deviation = try file.floats("assign.deviation", [width])
    guard deviation.values.allSatisfy({ $0 > 0 }) else {
        throw file.invalid("'assign.deviation' must be above 0 everywhere")
    }
    return Prototypes(
        changes: changes, mean: try file.floats("assign.mean", [width]), deviation: deviation,
        weight: try file.floats("assign.weight", [count, width]),
        bias: try file.floats("assign.bias", [count])
    )
}

/// `golden.safetensors` of a bundle with these slots, ports, observation and prototypes.
func readGolden(
    _ data: Data, slots: [Slot], inputs: [ModelPort], output: ModelPort,
    observation: ObservationSpec,
    prototypeCount: Int
) throws(FormatError) -> Golden {
    let file = try TensorFile("golden", format: "persona.golden/1", data)
    var number = 0
    while file.tensors[ExactName("base.\(number)")] != nil {
        number += 1
    }
    guard number > 0 else {
        throw file.invalid("expected one golden input or more, there is no tensor 'base.0'")
    }
    guard prototypeCount <= file.tensors.count else {
        throw file.invalid("\(file.tensors.count) tensors are too few for its prototypes")
    }
    let wanted = slots.flatMap(\.tensors)
    let series = ["base", "edited"] + (0..<prototypeCount).map { "prototype.\($0)" }
    var observed: [(name: String, shape: [Int])] = []
    if case .pooled(let spec) = observation {
        observed = [("features", [1, spec.features]), ("posterior", [1, spec.classes])]
    }
    let names = (0..<number).flatMap { i in
        inputs.map { "input.\(i).\($0.name)" }
            + (series + observed.map(\.name)).map { "\($0).\(i)" }
    }
    try file.expect(names + wanted.map { "edit.\($0.name)" })

    var arguments: [[ModelInput]] = []
    var outputs: [String: [FloatTensor]] = [:]
    for i in 0..<number {
        var free: [ExactName: Int] = [:]
        var row: [ModelInput] = []
        for port in inputs {
            row.append(try file.value("input.\(i).\(port.name)", of: port, free: &free))
        }
        arguments.append(row)
        for name in series {
            outputs[name, default: []].append(
                try file.output("\(name).\(i)", of: output, free: &free))
        }
        for (name, shape) in observed {
            outputs[name, default: []].append(try file.floats("\(name).\(i)", shape))
        }
    }
    var edit: SlotTensors = [:]
    for tensor in wanted {
        edit[tensor.name] = try file.floats("edit.\(tensor.name)", tensor.shape, half: true)
    }
    return Golden(
        inputs: arguments, base: outputs["base"]!,
        prototypes: (0..<prototypeCount).map { outputs["prototype.\($0)"]! }, edit: edit,
        edited: outputs["edited"]!, features: outputs["features"] ?? [],
        posterior: outputs["posterior"] ?? []
    )
}
