// What runs now, and since when, as the Personalise screen tells it.

import Foundation
import PersonaKit

public enum Running: Hashable, Sendable {
    case base
    case prototype(Int)
    case edit(EditSummary)
}

public struct EditSummary: Hashable, Sendable {
    public enum Source: Hashable, Sendable {
        /// Asked for since the app was started.
        case cloud
        /// Kept from an earlier start.
        case storage
    }

    public let sequence: Int64
    public let prototype: Int?
    public let issuedAt, expiresAt: Date
    public let bytes: Int
    public let source: Source
}

/// What came of the last request for an edit.
public enum RequestOutcome: Hashable, Sendable {
    case newEdit(bytes: Int, editToActiveMilliseconds: Double, roundTripMilliseconds: Double)
    case kept(Failure)

    public init(_ personalisation: Personalisation) {
        switch personalisation.outcome {
        case .newEdit(let accepted, let roundTrip):
            self = .newEdit(
                bytes: accepted.bytes,
                editToActiveMilliseconds: accepted.toActiveMilliseconds,
                roundTripMilliseconds: roundTrip
            )
        case .kept(let problem):
            self = .kept(Failure(problem))
        }
    }
}

/// Whether the cloud can be reached, as far as the last request tells.
public enum Reach: Hashable, Sendable {
    /// There is no cloud: the bundle came with the app.
    case noCloud
    case unknown
    case online
    case offline(since: Date, reason: String)

    func after(_ personalisation: Personalisation, at date: Date) -> Reach {
        guard case .kept(let problem) = personalisation.outcome,
            case CloudError.offline(let reason) = problem
        else { return .online }
        if case .offline(let since, _) = self { return .offline(since: since, reason: reason) }
        return .offline(since: date, reason: reason)
    }
}
