// A digit in the window: what the camera took, what it is if somebody said so, and both answers.

import Foundation
import PersonaKit

public struct DigitSample: Hashable, Sendable, Identifiable {
    public let id: Int
    public let pixels: [Float]
    public let frame: DigitFrame
    /// Said by the person; stays on the phone.
    public var label: Int?
    public var comparison: ClassComparison?

    var inputs: [ModelInput] {
        [.float32(FloatTensor(shape: [1, 1, frame.height, frame.width], values: pixels))]
    }
}

/// How many labelled samples are answered rightly, before and after.
public struct Tally: Hashable, Sendable {
    public let labelled, rightBefore, rightAfter: Int

    public init(_ samples: some Sequence<DigitSample>) {
        var labelled = 0
        var before = 0
        var after = 0
        for sample in samples {
            guard let label = sample.label, let comparison = sample.comparison else { continue }
            labelled += 1
            before += comparison.labelBefore == label ? 1 : 0
            after += comparison.labelAfter == label ? 1 : 0
        }
        self.labelled = labelled
        rightBefore = before
        rightAfter = after
    }
}
