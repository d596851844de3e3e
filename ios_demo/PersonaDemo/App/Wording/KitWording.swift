// PersonaKit's enumerations in the person's language, with their symbols.

import PersonaDemoLogic
import PersonaKit
import SwiftUI

extension Processor {
    var title: LocalizedStringResource {
        switch self {
        case .cpu: "CPU"
        case .gpu: "GPU"
        case .neuralEngine: "Neural Engine"
        }
    }

    var symbol: String {
        switch self {
        case .cpu: "cpu"
        case .gpu: "square.grid.3x3.square"
        case .neuralEngine: "brain"
        }
    }
}

extension Placement {
    var symbol: String { mainProcessor?.symbol ?? "questionmark.square.dashed" }

    /// In one line: the processor that has most of the work, and how much of it.
    var title: LocalizedStringResource {
        switch source {
        case .computePlan:
            guard let main = mainProcessor else { return "No operators" }
            let all = processors.reduce(0) { $0 + $1.operators }
            let some = processors.first { $0.processor == main }?.operators ?? 0
            return "\(String(localized: main.title)), \(some) of \(all) operators"
        case .delegates(let backends):
            return backends.isEmpty
                ? "CPU, without a delegate" : "Delegated to \(Set(backends).sorted().formatted())"
        case .unknown:
            return "Processor unknown"
        }
    }
}

extension SlotKind {
    var title: LocalizedStringResource {
        switch self {
        case .dense: "Dense"
        case .lowRank: "Low-rank"
        case .affine: "Affine"
        }
    }
}

extension Verified {
    var title: LocalizedStringResource {
        switch self {
        case .executed: "Executed"
        case .interpreted: "Interpreted"
        case .lowered: "Lowered only"
        }
    }
}

extension DriftDecision {
    var title: LocalizedStringResource {
        switch self {
        case .ask(.neverAsked): "Worth asking: never asked yet"
        case .ask(.expiring): "Worth asking: the edit runs out"
        case .ask(.drifted(let drift)):
            "Worth asking: drift \(drift.formatted(.number.precision(.fractionLength(2))))"
        case .rest(let drift):
            "At rest: drift \(drift.formatted(.number.precision(.fractionLength(2)))) of 1"
        }
    }
}

extension EditSummary.Source {
    var title: LocalizedStringResource {
        switch self {
        case .cloud: "The cloud, just now"
        case .storage: "Kept from an earlier start"
        }
    }
}

extension ThermalState {
    var title: LocalizedStringResource {
        switch self {
        case .nominal: "Nominal"
        case .fair: "Fair"
        case .serious: "Serious"
        case .critical: "Critical"
        case .unknown: "Unknown"
        }
    }
}
