/// Whether a run may be called a result.

import Foundation

public enum InvalidReason: Sendable, Hashable {
    /// The system slowed its processors down, before or after.
    case throttled(before: ThermalState, after: ThermalState)
    case lowPowerMode
    case tooFewIterations(Int, wanted: Int)
    /// The later half of the base's calls was slower than the earlier by this factor.
    case slowedDown(Double)

    public var message: String {
        switch self {
        case .throttled(let before, let after):
            "the device was hot (\(before.rawValue) before, \(after.rawValue) after), and its "
                + "processors slowed down: let it cool and run again"
        case .lowPowerMode:
            "low power mode was on: turn it off and run again"
        case .tooFewIterations(let count, let wanted):
            "\(count) calls are too few for a 99th percentile: take \(wanted) or more"
        case .slowedDown(let factor):
            "calls became slower by a factor of \((factor * 100).rounded() / 100) during the run: "
                + "let the device rest, close other apps and run again"
        }
    }
}

public enum Validity: Sendable, Equatable {
    case valid
    case invalid([InvalidReason])

    /// As many as a 99th percentile needs to be more than the largest value.
    static let fewest = 100
    /// How much slower the later half may be.
    static let mostSlowdown = 1.25

    /// `base`: microseconds of the base's calls, in their order.
    public init(
        base: [Double], thermalBefore: ThermalState, thermalAfter: ThermalState, lowPower: Bool
    ) {
        var reasons: [InvalidReason] = []
        if thermalBefore.throttles || thermalAfter.throttles {
            reasons.append(.throttled(before: thermalBefore, after: thermalAfter))
        }
        if lowPower { reasons.append(.lowPowerMode) }
        if base.count < Self.fewest {
            reasons.append(.tooFewIterations(base.count, wanted: Self.fewest))
        } else {
            let half = base.count / 2
            let earlier = Statistics.quantile(Array(base[..<half]), 0.5)
            let later = Statistics.quantile(Array(base[half...]), 0.5)
            if later > Self.mostSlowdown * earlier { reasons.append(.slowedDown(later / earlier)) }
        }
        self = reasons.isEmpty ? .valid : .invalid(reasons)
    }
}
