/// What a slot is on the wire, and the one sentence every device obeys.
///
///     effective = base + prototype + edit
///
/// A dense slot adds tensors element by element. A low-rank slot adds the products of its factors,
/// so the factors are stacked along the rank: [a_p; a_e] and [b_p, b_e]. A per-channel affine slot
/// adds to the multiplier (whose base is 1) and to the shift (whose base is 0).

import Foundation

/// How a slot is edited: all weights, two thin factors, or a scale and shift a channel.
public enum SlotKind: String, Sendable, CaseIterable {
    case dense
    case lowRank = "low-rank"
    case affine
}

/// One tensor of a slot in an edit.
public struct SlotTensor: Sendable, Equatable {
    /// `SLOT.SUFFIX`.
    public let name: String
    public let suffix: String
    /// Shape in an edit.
    public let shape: [Int]
    /// Shape that a program takes: low-rank factors have twice the rank.
    public let feedShape: [Int]
    /// Largest magnitude allowed, as the nearest binary32 number.
    public let limit: Float
}

/// One editable slot of a bundle.
public struct Slot: Sendable, Equatable {
    /// Every suffix that a tensor of a slot of any kind may have.
    static let suffixes = ["weight", "a", "b", "scale", "shift", "bias"]

    /// The module's path in the backbone, such as `head.0`.
    public let name: String
    public let kind: SlotKind
    /// Rows of the weight; affine: channels.
    public let out: Int
    /// Columns of the weight; affine: 0.
    public let `in`: Int
    /// Of one edit; 0 unless low-rank.
    public let rank: Int
    public let bias: Bool
    /// Limit of each weight change; low-rank: of each element of b·a; affine: of the scale.
    public let bound: Double
    /// Limit of each bias change; affine: of the shift.
    public let biasBound: Double

    /// The tensors of an edit of this slot, in the contract's order.
    public var tensors: [SlotTensor] {
        switch kind {
        case .dense:
            [tensor("weight", [out, `in`], bound)] + biasTensors
        case .lowRank:
            [
                tensor("a", [rank, `in`], 1, feedShape: [2 * rank, `in`]),
                tensor("b", [out, rank], bound / Double(rank), feedShape: [out, 2 * rank]),
            ] + biasTensors
        case .affine:
            [tensor("scale", [out], bound), tensor("shift", [out], biasBound)]
        }
    }

    private var biasTensors: [SlotTensor] {
        bias ? [tensor("bias", [out], biasBound)] : []
    }

    private func tensor(
        _ suffix: String, _ shape: [Int], _ limit: Double, feedShape: [Int]? = nil
    ) -> SlotTensor {
        SlotTensor(
            name: "\(name).\(suffix)", suffix: suffix, shape: shape,
            feedShape: feedShape ?? shape, limit: Float(limit)
        )
    }
}

/// What a program's slots take: a feed says which of the two it carries.
public struct SlotValues: Sendable, Equatable {
    /// Prototype + edit, for programs that add the base themselves.
    public let change: SlotTensors
    /// Base + prototype + edit.
    public let effective: SlotTensors
    /// Whether base + prototype + edit is the base.
    public let changesNothing: Bool

    /// All arithmetic is binary32: first change = prototype + edit, then base + change, so two
    /// roundings. `prototype` and `edit` hold an edit's tensors, `base` those that a program takes.
    public init(slots: [Slot], base: SlotTensors, prototype: SlotTensors, edit: SlotTensors) {
        var change: SlotTensors = [:]
        var effective: SlotTensors = [:]
        var nothing = true
        for slot in slots {
            for tensor in slot.tensors {
                let group = prototype[tensor.name]!
                let own = edit[tensor.name]!
                let sum: FloatTensor
                switch tensor.suffix {
                case "a":
                    sum = FloatTensor(shape: tensor.feedShape, values: group.values + own.values)
                case "b":
                    sum = Self.besideEachOther(group, own)
                default:
                    sum = Self.added(group, own)
                    nothing = nothing && sum.values.allSatisfy { $0 == 0 }
                }
                change[tensor.name] = sum
                let stacked = tensor.suffix == "a" || tensor.suffix == "b"
                effective[tensor.name] = stacked ? sum : Self.added(base[tensor.name]!, sum)
            }
            if slot.kind == .lowRank {
                nothing =
                    nothing
                    && [prototype, edit].allSatisfy { part in
                        ["a", "b"].contains {
                            part["\(slot.name).\($0)"]!.values.allSatisfy { $0 == 0 }
                        }
                    }
            }
        }
        self.change = change
        self.effective = effective
        changesNothing = nothing
    }

    private static func added(_ left: FloatTensor, _ right: FloatTensor) -> FloatTensor {
        FloatTensor(shape: left.shape, values: zip(left.values, right.values).map { $0 + $1 })
    }

    /// [out, rank] and [out, rank] as [out, 2·rank].
    private static func besideEachOther(_ left: FloatTensor, _ right: FloatTensor) -> FloatTensor {
        let rows = left.shape[0]
        let rank = left.shape[1]
        var values: [Float] = []
        values.reserveCapacity(2 * left.values.count)
        for row in 0..<rows {
            values += left.values[row * rank..<(row + 1) * rank]
            values += right.values[row * rank..<(row + 1) * rank]
        }
        return FloatTensor(shape: [rows, 2 * rank], values: values)
    }
}

extension [Slot] {
    /// The edit that changes nothing.
    public var zeroEdit: SlotTensors {
        SlotTensors(uniqueKeysWithValues: flatMap(\.tensors).map { ($0.name, .zeros($0.shape)) })
    }
}
