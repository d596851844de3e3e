/// Whether a run is a result, after MLPerf Mobile: calls enough, long enough, and no throttling.
/// The rules and their codes are those of the Android demo; low power mode is Apple's own.

import Foundation

public enum InvalidReason: Sendable, Hashable {
    case hotBefore(ThermalState)
    case hotAfter(ThermalState)
    case lowPowerMode
    /// The last quarter of the base's calls was slower than the first by this factor.
    case slowedDown(Double)
    case tooFew(Int)
    case tooShort(milliseconds: Double)

    /// Stands in reports.
    public var code: String {
        switch self {
        case .hotBefore: "run.hot_before"
        case .hotAfter: "run.hot_after"
        case .lowPowerMode: "run.low_power"
        case .slowedDown: "run.slowed_down"
        case .tooFew: "run.too_few"
        case .tooShort: "run.too_short"
        }
    }

    /// For people.
    public var message: String {
        switch self {
        case .hotBefore(let state):
            "the device was hot before the run (\(state.rawValue)): let it cool and run again"
        case .hotAfter(let state):
            "the device was hot after the run (\(state.rawValue)): let it cool and run again"
        case .lowPowerMode:
            "low power mode was on: turn it off and run again"
        case .slowedDown(let factor):
            "calls became slower by a factor of \((factor * 100).rounded() / 100) during the run: "
                + "let the device rest, close other apps and run again"
        case .tooFew(let count):
            "\(count) calls are too few: take \(Validity.fewest) or more"
        case .tooShort(let milliseconds):
            "\(milliseconds.rounded()) ms are too short: let the run take "
                + "\(Validity.shortestMilliseconds) ms or more"
        }
    }
}

public enum Validity: Sendable, Equatable {
    case valid
    case invalid([InvalidReason])

    static let fewest = 50
    static let shortestMilliseconds = 1_000.0
    /// How much slower the last quarter may be than the first.
    static let mostSlowdown = 1.15

    /// Empty where it is valid.
    public var reasons: [InvalidReason] {
        if case .invalid(let reasons) = self { reasons } else { [] }
    }

    /// `base`: microseconds of the base's calls, in their order. `milliseconds`: from the first
    /// counted call to the last.
    public init(
        base: [Double], milliseconds: Double, thermalBefore: ThermalState,
        thermalAfter: ThermalState, lowPower: Bool
    ) {
        var reasons: [InvalidReason] = []
        if thermalBefore.throttles { reasons.append(.hotBefore(thermalBefore)) }
        if thermalAfter.throttles { reasons.append(.hotAfter(thermalAfter)) }
        if lowPower { reasons.append(.lowPowerMode) }
        let slowdown = Self.slowdown(base)
        if slowdown > Self.mostSlowdown { reasons.append(.slowedDown(slowdown)) }
        if base.count < Self.fewest { reasons.append(.tooFew(base.count)) }
        if milliseconds < Self.shortestMilliseconds {
            reasons.append(.tooShort(milliseconds: milliseconds))
        }
        self = reasons.isEmpty ? .valid : .invalid(reasons)
    }

    /// Median of the last quarter ÷ median of the first.
    private static func slowdown(_ calls: [Double]) -> Double {
        let quarter = calls.count / 4
        guard quarter > 0 else { return 1 }
        return Statistics.quantile(Array(calls.suffix(quarter)), 0.5)
            / Statistics.quantile(Array(calls.prefix(quarter)), 0.5)
    }
}
