// When the app asks for an edit by itself: the gate says that the window has drifted, nothing is
// under way, and the last request that brought no edit lies some time back.

import Foundation
import PersonaKit

public struct AutomaticMode: Hashable, Sendable {
    public var isOn = false
    private var resting = TimeInterval(0)
    private var restsUntil = Date.distantPast

    public static let shortestRest = TimeInterval(5)
    public static let longestRest = TimeInterval(300)

    public init() {}

    public func asks(_ decision: DriftDecision, busy: Bool, at now: Date) -> Bool {
        guard isOn, !busy, now >= restsUntil, case .ask = decision else { return false }
        return true
    }

    /// After each request: none is sent for twice as long as last time, until one brings an edit.
    public mutating func learn(_ outcome: RequestOutcome, at now: Date) {
        switch outcome {
        case .newEdit:
            resting = 0
            restsUntil = now
        case .kept:
            resting = min(max(resting * 2, Self.shortestRest), Self.longestRest)
            restsUntil = now.addingTimeInterval(resting)
        }
    }
}
