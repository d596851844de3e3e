import Testing

@testable import PersonaDemoLogic

@Suite struct ItemDeckTests {
    @Test func cardsAreDifferentItemsOfTheVocabulary() {
        var generator = Seeded(seed: 1)
        let deck = ItemDeck(vocabulary: 30, size: 20, using: &generator)
        #expect(Set(deck.cards).count == 20)
        #expect(deck.cards.allSatisfy { (1...30).contains($0) })
    }

    @Test func whatIsOpenedJoinsTheHistoryAndANewCardComes() throws {
        var generator = Seeded(seed: 2)
        var deck = ItemDeck(vocabulary: 30, size: 20, using: &generator)
        let item = try #require(deck.top)
        deck.open(item, using: &generator)
        #expect(deck.history == [item])
        #expect(!deck.cards.contains(item))
        #expect(deck.cards.count == 20)
    }

    @Test func aPassedCardGoesToTheBottom() throws {
        var generator = Seeded(seed: 3)
        var deck = ItemDeck(vocabulary: 30, size: 5, using: &generator)
        let cards = deck.cards
        deck.pass()
        #expect(deck.cards == Array(cards[1...]) + [cards[0]])
        #expect(deck.history.isEmpty)
    }

    @Test func aSmallVocabularyIsDealtToItsEnd() throws {
        var generator = Seeded(seed: 4)
        var deck = ItemDeck(vocabulary: 3, size: 20, using: &generator)
        #expect(Set(deck.cards) == [1, 2, 3])
        while let item = deck.top { deck.open(item, using: &generator) }
        #expect(Set(deck.history) == [1, 2, 3])
    }

    @Test func openingWhatIsNotThereChangesNothing() {
        var generator = Seeded(seed: 5)
        var deck = ItemDeck(vocabulary: 30, size: 5, using: &generator)
        let before = deck
        deck.open(99, using: &generator)
        #expect(deck == before)
    }
}
