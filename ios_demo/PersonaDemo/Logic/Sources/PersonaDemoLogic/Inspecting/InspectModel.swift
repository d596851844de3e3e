// The Inspect screen: what the bundle holds, and what was verified with which outcome.

import Foundation
import Observation
import PersonaKit

@MainActor @Observable
public final class InspectModel {
    public let bundle: ModelBundle
    public let slots: [SlotRow]
    public let programs: [ProgramRow]
    /// The newest first.
    public private(set) var log: [VerificationEntry] = []
    public private(set) var device: String?
    public private(set) var sequence = Int64(0)
    public private(set) var placement: Placement?

    @ObservationIgnored let live: LiveModel

    init(live: LiveModel) {
        self.live = live
        bundle = live.bundle
        slots = live.bundle.manifest.slots.map(SlotRow.init)
        programs = live.bundle.manifest.programs.map(ProgramRow.init)
    }

    /// As it lies in the bundle.
    public var manifestText: String {
        let file = bundle.folder.appending(path: Manifest.fileName)
        return (try? String(contentsOf: file, encoding: .utf8)) ?? ""
    }

    public func refresh() async {
        log = await live.verificationLog
        let status = await live.status
        device = status.device
        sequence = status.sequence
        placement = status.placement
    }
}

public struct SlotRow: Hashable, Sendable, Identifiable {
    public let name: String
    public let kind: SlotKind
    /// As the manifest gives it: rows × columns, and the rank of low-rank slots.
    public let shape: String
    public let bias: Bool
    public let bound: Double
    /// Numbers that an edit has for this slot.
    public let values: Int

    public var id: String { name }

    init(_ slot: Slot) {
        name = slot.name
        kind = slot.kind
        bias = slot.bias
        bound = slot.bound
        switch slot.kind {
        case .dense:
            shape = "\(slot.out) × \(slot.in)"
            values = slot.out * slot.in + (slot.bias ? slot.out : 0)
        case .lowRank:
            shape = "\(slot.out) × \(slot.rank) · \(slot.rank) × \(slot.in)"
            values = (slot.out + slot.in) * slot.rank + (slot.bias ? slot.out : 0)
        case .affine:
            shape = "2 × \(slot.out)"
            values = 2 * slot.out
        }
    }
}

public struct ProgramRow: Hashable, Sendable, Identifiable {
    public let target: String
    public let precision: Precision
    public let verified: Verified
    public let tolerance: Double

    public var id: String { "\(target) \(precision.rawValue)" }

    init(_ program: Program) {
        target = program.target
        precision = program.precision
        verified = program.verified
        tolerance = program.tolerance
    }
}
