/// Whether to ask the cloud for another edit: only when the window has drifted from the one that it
/// was last told, or the edit's time runs out. Observations and nothing else are compared.
///
/// Specified in docs/edit-format.md, "When a device asks again".

import Foundation

public enum DriftReason: Sendable, Equatable {
    /// The cloud has not been told anything with this bundle.
    case neverAsked
    /// The kept edit does not run, or less than a tenth of its time is left.
    case expiring
    /// The window is another one now: the drift is 1 or more.
    case drifted(Double)
}

public enum DriftDecision: Sendable, Equatable {
    case ask(DriftReason)
    /// The window is still like the one that the edit was made from: the drift is below 1.
    case rest(drift: Double)
}

/// The edit that a device keeps.
public enum KeptEdit: Sendable, Equatable {
    case running(issuedAt: Date, expiresAt: Date)
    /// It does not run, for its time is over or the clock is wrong.
    case resting
}

/// What is compared with a new window.
public struct DriftGate: Sendable {
    /// Another edit is asked for when less than one part in so many of the edit's time is left.
    static let partsOfTime = 10.0
    /// Total variation of item shares or class mixes at which the drift is 1.
    static let mixLimit = 0.25
    /// Shift of feature means, in deviations, at which the drift is 1: a medium effect (Cohen 1988).
    static let shiftLimit = 0.5
    /// How many times the difference that sampling is expected to make is no drift.
    static let margin = 2.0

    private static let smallestDeviation = 1e-6

    /// What the cloud was last told with this bundle.
    public let told: WindowObservation?
    public let kept: KeptEdit?

    public init(told: WindowObservation?, kept: KeptEdit?) {
        self.told = told
        self.kept = kept
    }

    public func decide(
        _ observation: WindowObservation, spec: ObservationSpec, now: Date
    ) -> DriftDecision {
        guard let told else { return .ask(.neverAsked) }
        if let kept, kept.isExpiring(at: now) { return .ask(.expiring) }
        let drift = Self.drift(from: told, to: observation, spec: spec)
        return drift < 1 ? .rest(drift: drift) : .ask(.drifted(drift))
    }

    /// How far two windows of one kind are apart; 1 is the limit.
    ///
    ///     items    ½ Σ_v |p_v − q_v| ÷ 0.25
    ///     pooled   max( √max(0, mean_f Δ_f² ÷ s_f² − 2ν) ÷ 0.5,  (½ Σ_c |p_c − q_c| − 2μ) ÷ 0.25 )
    ///
    /// where s² is the mean variance of the two. ν = 1/n + 1/m and μ = ½ Σ_c √(2ν p_c (1 − p_c) ÷ π)
    /// are what sampling alone is expected to make of the mean square and of the total variation;
    /// twice that is no drift, so that short windows ask no more often than long ones.
    public static func drift(
        from told: WindowObservation, to now: WindowObservation, spec: ObservationSpec
    ) -> Double {
        guard case .pooled(let before) = told, case .pooled(let after) = now else {
            return totalVariation(told.vector(spec), now.vector(spec)) / mixLimit
        }
        let sampling = 1 / Double(before.count) + 1 / Double(after.count)
        return max(
            shift(before, after, sampling) / shiftLimit, mix(before, after, sampling) / mixLimit
        )
    }

    private static func shift(
        _ before: PooledObservation, _ after: PooledObservation, _ sampling: Double
    ) -> Double {
        let squares = before.mean.values.indices.map { f in
            let difference = Double(before.mean.values[f]) - Double(after.mean.values[f])
            let (s, t) = (Double(before.deviation.values[f]), Double(after.deviation.values[f]))
            let deviation = max(((s * s + t * t) / 2).squareRoot(), smallestDeviation)
            return difference / deviation * (difference / deviation)
        }
        return max(0, Statistics.mean(squares) - margin * sampling).squareRoot()
    }

    private static func mix(
        _ before: PooledObservation, _ after: PooledObservation, _ sampling: Double
    ) -> Double {
        let noise = before.classPrior.values.reduce(0) { sum, share in
            let p = Double(share)
            return sum + (2 * sampling * p * (1 - p) / .pi).squareRoot() / 2
        }
        return totalVariation(before.classPrior.values, after.classPrior.values) - margin * noise
    }

    private static func totalVariation(_ p: [Float], _ q: [Float]) -> Double {
        zip(p, q).reduce(0) { $0 + abs(Double($1.0) - Double($1.1)) } / 2
    }
}

extension KeptEdit {
    /// Exact where times are whole seconds, as those of an edit are.
    fileprivate func isExpiring(at now: Date) -> Bool {
        switch self {
        case .resting: true
        case .running(let issuedAt, let expiresAt):
            DriftGate.partsOfTime * expiresAt.timeIntervalSince(now)
                < expiresAt.timeIntervalSince(issuedAt)
        }
    }
}
