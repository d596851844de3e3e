// Cards that somebody opens or passes, as a ranker of next items sees them: a history and candidates.
//
// Item ids are 1…vocabulary. What is opened joins the history and is not shown again; what is passed
// goes to the bottom of the deck, and nobody is told.

public struct ItemDeck: Hashable, Sendable {
    public let vocabulary: Int
    /// What was opened, oldest first.
    public private(set) var history: [Int64]
    /// The cards, the top one first; they are what is ranked.
    public private(set) var cards: [Int64]

    /// Deals `size` different cards, or the whole vocabulary where that is smaller.
    public init(
        vocabulary: Int, size: Int, history: [Int64] = [],
        using generator: inout some RandomNumberGenerator
    ) {
        self.vocabulary = vocabulary
        self.history = history
        cards = []
        deal(size, using: &generator)
    }

    public var top: Int64? { cards.first }

    /// Opens a card, which need not be the top one.
    public mutating func open(_ item: Int64, using generator: inout some RandomNumberGenerator) {
        guard let place = cards.firstIndex(of: item) else { return }
        cards.remove(at: place)
        history.append(item)
        deal(1, using: &generator)
    }

    public mutating func pass() {
        guard !cards.isEmpty else { return }
        cards.append(cards.removeFirst())
    }

    private mutating func deal(_ count: Int, using generator: inout some RandomNumberGenerator) {
        let known = Set(cards).union(history)
        let left = vocabulary - known.count
        var dealt = Set<Int64>()
        while dealt.count < min(count, left) {
            let item = Int64.random(in: 1...Int64(vocabulary), using: &generator)
            if !known.contains(item), dealt.insert(item).inserted {
                cards.append(item)
            }
        }
    }
}
