/// The probe: after the swap, does the edited program do what the cloud computed for this very edit?
///
/// So no edit is ever applied to the wrong slot, transposed, or silently without effect. Specified
/// in docs/edit-format.md, "The probe".

import Foundation

public enum Probe {
    /// Whether |expected − output| ≤ tolerance · max(1, max |expected|) for every element.
    ///
    /// The difference is taken in binary32, the rest in binary64; NaN is never within.
    public static func agrees(
        _ output: FloatTensor, with expected: FloatTensor, tolerance: Double
    ) -> Bool {
        guard output.shape == expected.shape else { return false }
        let allowed = tolerance * max(1, Double(expected.largestMagnitude))
        return zip(expected.values, output.values).allSatisfy { Double(abs($0 - $1)) <= allowed }
    }

    /// Throws `probe.mismatch` or `probe.no_effect`.
    ///
    /// `expected`, `output`, `base`: outputs for the first golden input, from the cloud, from the
    /// edited program, and from the program without an edit. `changesNothing`: prototype and edit.
    public static func check(
        expected: FloatTensor, output: FloatTensor, base: FloatTensor, tolerance: Double,
        changesNothing: Bool
    ) throws(FormatError) {
        guard agrees(output, with: expected, tolerance: tolerance) else {
            throw FormatError(
                .probeMismatch,
                "the edited program does not answer what the cloud computed "
                    + "(\(distance(output, expected)); \(tolerance) relative is allowed). The edit "
                    + "is taken back; check that cloud and device have the same bundle"
            )
        }
        guard changesNothing || output.values != base.values else {
            throw FormatError(
                .probeNoEffect,
                "the edited program must answer otherwise than the base, but answers alike: the "
                    + "edit reached no slot. It is taken back; export the bundle again"
            )
        }
    }

    /// How far two outputs are apart, for people.
    static func distance(_ output: FloatTensor, _ expected: FloatTensor) -> String {
        guard output.shape == expected.shape else {
            return "shape \(output.shape) instead of \(expected.shape)"
        }
        let differences = zip(expected.values, output.values).map { abs($0 - $1) }
        let largest = differences.contains(where: \.isNaN) ? Float.nan : differences.max() ?? 0
        return "\(largest) away"
    }
}
