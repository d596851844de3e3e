// Which digits somebody writes: mostly a few, as people do. Habits are part of what an edit is for.

public struct DigitHabits: Hashable, Sendable {
    /// In rising order.
    public let favourites: [Int]

    /// How much of what is written is one of the favourites.
    public static let share = 0.85

    public init(using generator: inout some RandomNumberGenerator) {
        favourites = (0...9).shuffled(using: &generator).prefix(3).sorted()
    }

    public func next(using generator: inout some RandomNumberGenerator) -> Int {
        Double.random(in: 0..<1, using: &generator) < Self.share
            ? favourites[Int.random(in: 0..<favourites.count, using: &generator)]
            : Int.random(in: 0...9, using: &generator)
    }
}
