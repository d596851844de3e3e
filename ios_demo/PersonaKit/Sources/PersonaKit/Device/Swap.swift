/// The swap as a state machine: what runs, and what is being tried.
///
///     running(s) ── begin(c) ──► trying(c, fallback: s) ── keep ──────► running(c)
///                                        │
///                                        ├── takeBack ──► running(s)
///                                        └── fail ──────► broken ── resume(s) ──► running(s)
///
/// A candidate without something to fall back to, or an edit that runs unprobed, cannot be written.

import Foundation

/// What runs.
public enum LiveState: Sendable, Equatable {
    /// No edit: the backbone as it was shipped.
    case base
    /// A group edit, chosen on the device.
    case prototype(Int)
    /// The device's own edit, around its prototype.
    case edit(Edit)
}

/// What wants to run, and is probed first. The base needs no probe.
enum Candidate: Sendable, Equatable {
    case prototype(Int)
    case edit(Edit)

    var state: LiveState {
        switch self {
        case .prototype(let index): .prototype(index)
        case .edit(let edit): .edit(edit)
        }
    }
}

enum Swap: Sendable, Equatable {
    case running(LiveState)
    case trying(Candidate, fallback: LiveState)
    /// Neither the candidate nor what ran before could be bound: nothing may be predicted until
    /// something is. `wanted` is what ran before.
    case broken(reason: String, wanted: LiveState)

    /// What runs, or what would if the engine were sound.
    var settled: LiveState {
        switch self {
        case .running(let state), .trying(_, fallback: let state), .broken(_, wanted: let state):
            state
        }
    }

    func begin(_ candidate: Candidate) -> Swap {
        .trying(candidate, fallback: settled)
    }

    /// The probe passed.
    func keep() -> Swap {
        guard case .trying(let candidate, _) = self else { return self }
        return .running(candidate.state)
    }

    /// The probe failed, and what ran before runs again.
    func takeBack() -> Swap {
        .running(settled)
    }

    /// What ran before could not be bound again.
    func fail(_ reason: String) -> Swap {
        .broken(reason: reason, wanted: settled)
    }
}
