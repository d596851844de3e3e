// What a person can give a model to work on, told from the model's inputs.

import Foundation
import PersonaKit

public enum SampleForm: Hashable, Sendable {
    /// One grey image [1, 1, h, w] and ten classes: a digit can be drawn.
    case digit(DigitFrame)
    /// A history [1, length] and candidates [1, n] of item ids.
    case items(ItemForm)
    /// Anything else: the bundle's golden inputs are shown.
    case golden

    public init(_ manifest: Manifest) {
        let ports = manifest.inputs
        if ports.count == 1, ports[0].dtype == .float32, ports[0].shape.count == 4,
            ports[0].shape[1] == 1, ports[0].shape.allSatisfy({ $0 > 0 }),
            manifest.outputs[0].shape == [1, 10]
        {
            self = .digit(DigitFrame(width: ports[0].shape[3], height: ports[0].shape[2]))
        } else if case .items(let spec) = manifest.observation,
            let form = ItemForm(ports, vocabulary: spec.vocabulary)
        {
            self = .items(form)
        } else {
            self = .golden
        }
    }
}

public struct ItemForm: Hashable, Sendable {
    public let vocabulary: Int
    /// Items in the history; shorter ones are padded with 0 on the left.
    public let length: Int
    public let maxCandidates: Int
    private let historyFirst: Bool

    init?(_ ports: [ModelPort], vocabulary: Int) {
        guard ports.count == 2, ports.allSatisfy({ $0.dtype == .int64 && $0.shape.count == 2 }),
            let history = ports.firstIndex(where: { $0.shape[1] > 0 }),
            let dimension = ports[1 - history].free.first
        else { return nil }
        self.vocabulary = vocabulary
        length = ports[history].shape[1]
        maxCandidates = dimension.max
        historyFirst = history == 0
    }

    public func inputs(history: [Int64], candidates: [Int64]) -> [ModelInput] {
        let newest = history.suffix(length)
        let padded = [Int64](repeating: 0, count: length - newest.count) + newest
        let seen = ModelInput.int64(IntTensor(shape: [1, length], values: padded))
        let asked = ModelInput.int64(IntTensor(shape: [1, candidates.count], values: candidates))
        return historyFirst ? [seen, asked] : [asked, seen]
    }
}
