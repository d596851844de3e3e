// What an edit changes for one sample: the model's answer before and after, side by side.

import Foundation

/// One class's share of the answer, as softmax gives it.
public struct ClassShare: Hashable, Sendable, Identifiable {
    public let label: Int
    public let before, after: Double

    public var id: Int { label }
}

public struct ClassComparison: Hashable, Sendable {
    /// Every class, in the model's order.
    public let shares: [ClassShare]

    /// Precondition: as many scores before as after, and one at least.
    public init(before: [Float], after: [Float]) {
        precondition(before.count == after.count && !before.isEmpty)
        let pairs = zip(softmax(before), softmax(after))
        shares = pairs.enumerated().map { label, pair in
            ClassShare(label: label, before: pair.0, after: pair.1)
        }
    }

    /// The most likely class; the lower one where two are alike.
    public var labelBefore: Int { best(\.before) }
    public var labelAfter: Int { best(\.after) }

    /// The classes that matter, the likeliest on either side first.
    public func leading(_ count: Int) -> [ClassShare] {
        let sorted = shares.sorted { first, second in
            let (a, b) = (max(first.before, first.after), max(second.before, second.after))
            return a == b ? first.label < second.label : a > b
        }
        return Array(sorted.prefix(count))
    }

    private func best(_ side: KeyPath<ClassShare, Double>) -> Int {
        let most = shares.map { $0[keyPath: side] }.max()
        return shares.firstIndex { $0[keyPath: side] == most } ?? 0
    }
}

/// One candidate's place in the ranking; 1 is the top.
public struct RankMove: Hashable, Sendable, Identifiable {
    public let item: Int64
    public let before, after: Int

    public var id: Int64 { item }
    /// How many places it rose; below 0 it fell.
    public var rise: Int { before - after }
}

public struct RankComparison: Hashable, Sendable {
    /// Sorted by the place after.
    public let moves: [RankMove]

    /// Precondition: a score for each item on both sides, and no item twice.
    public init(items: [Int64], before: [Float], after: [Float]) {
        precondition(items.count == before.count && items.count == after.count)
        let earlier = ranks(before)
        let later = ranks(after)
        moves = items.indices
            .map { RankMove(item: items[$0], before: earlier[$0], after: later[$0]) }
            .sorted { $0.after < $1.after }
    }
}

func softmax(_ scores: [Float]) -> [Double] {
    let highest = Double(scores.max() ?? 0)
    let powers = scores.map { exp(Double($0) - highest) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
}

/// Each score's place; among equals the earlier one is first.
func ranks(_ scores: [Float]) -> [Int] {
    let order = scores.indices.sorted { a, b in
        scores[a] == scores[b] ? a < b : scores[a] > scores[b]
    }
    var places = [Int](repeating: 0, count: scores.count)
    for (place, index) in order.enumerated() { places[index] = place + 1 }
    return places
}
