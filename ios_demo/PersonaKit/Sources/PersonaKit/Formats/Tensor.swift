/// Arrays of numbers with a shape, row by row.

import Foundation

/// Binary32 values with a shape, row by row.
public struct FloatTensor: Sendable, Equatable {
    public let shape: [Int]
    public let values: [Float]

    /// `values` must be as many as the product of `shape`.
    public init(shape: [Int], values: [Float]) {
        precondition(
            shape.reduce(1, *) == values.count,
            "a tensor of shape \(shape) has \(shape.reduce(1, *)) values, got \(values.count)"
        )
        self.shape = shape
        self.values = values
    }

    public static func zeros(_ shape: [Int]) -> FloatTensor {
        FloatTensor(shape: shape, values: Array(repeating: 0, count: shape.reduce(1, *)))
    }

    /// The same values, row by row, in another shape of the same size.
    public func reshaped(_ shape: [Int]) -> FloatTensor {
        FloatTensor(shape: shape, values: values)
    }

    /// The largest magnitude; 0 without elements.
    public var largestMagnitude: Float {
        values.reduce(0) { max($0, abs($1)) }
    }
}

/// 64-bit whole numbers with a shape, row by row: item ids.
public struct IntTensor: Sendable, Equatable {
    public let shape: [Int]
    public let values: [Int64]

    /// `values` must be as many as the product of `shape`.
    public init(shape: [Int], values: [Int64]) {
        precondition(
            shape.reduce(1, *) == values.count,
            "a tensor of shape \(shape) has \(shape.reduce(1, *)) values, got \(values.count)"
        )
        self.shape = shape
        self.values = values
    }
}

/// One input of a program.
public enum ModelInput: Sendable, Equatable {
    case float32(FloatTensor)
    case int64(IntTensor)

    public var shape: [Int] {
        switch self {
        case .float32(let tensor): tensor.shape
        case .int64(let tensor): tensor.shape
        }
    }

    public var count: Int { shape.reduce(1, *) }
}

/// `SLOT.SUFFIX` → values. Slot names are plain ASCII, so `String` compares them exactly.
public typealias SlotTensors = [String: FloatTensor]

/// IEEE binary16, converted by hand: `Float16` is not there on every Mac.
enum Half {
    /// The binary32 number that is exactly this binary16 number, subnormal numbers included.
    static func widened(_ half: UInt16) -> Float {
        let sign = UInt32(half & 0x8000) << 16
        let exponent = UInt32(half >> 10) & 0x1F
        let fraction = UInt32(half & 0x3FF)
        switch (exponent, fraction) {
        case (0, 0):
            return Float(bitPattern: sign)
        case (0, _):
            let magnitude = Float(fraction) * 0x1p-24
            return sign == 0 ? magnitude : -magnitude
        case (31, _):
            return Float(bitPattern: sign | 0x7F80_0000 | fraction << 13)
        default:
            return Float(bitPattern: sign | (exponent + 112) << 23 | fraction << 13)
        }
    }

    /// The nearest binary16 number, ties to even; infinite beyond the largest.
    static func narrowed(_ value: Float) -> UInt16 {
        let sign = UInt16(value.bitPattern >> 16) & 0x8000
        let magnitude = abs(value)
        if magnitude.isNaN { return sign | 0x7E00 }
        if magnitude >= 65520 { return sign | 0x7C00 }
        if magnitude < 0x1p-14 {
            return sign | UInt16((magnitude * 0x1p24).rounded(.toNearestOrEven))
        }
        let bits = magnitude.bitPattern - 112 << 23
        let rounded = bits + 0xFFF + (bits >> 13 & 1)
        return sign | UInt16(rounded >> 13)
    }
}
