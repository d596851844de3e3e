import Foundation
import Testing

@testable import PersonaDemoLogic

@Suite struct ComparisonTests {
    @Test func softmaxOfEqualScoresIsUniformHoweverLargeTheyAre() {
        #expect(softmax([1e4, 1e4]) == [0.5, 0.5])
    }

    @Test func sharesAreThoseThatAPocketCalculatorGives() {
        let comparison = ClassComparison(before: [0, 0], after: [Float(3).logarithm, 0])
        #expect(abs(comparison.shares[0].after - 0.75) < 1e-6)
        #expect(comparison.shares[0].before == 0.5)
    }

    @Test func theLowerLabelWinsATie() {
        let comparison = ClassComparison(before: [2, 2, 1], after: [0, 5, 5])
        #expect(comparison.labelBefore == 0)
        #expect(comparison.labelAfter == 1)
    }

    @Test func whatLeadsOnEitherSideIsShownFirst() {
        let comparison = ClassComparison(before: [9, 0, 0, 1], after: [0, 0, 8, 1])
        #expect(comparison.leading(2).map(\.label) == [0, 2])
    }

    @Test func ranksCountFromOneAndTheEarlierOfEqualsIsFirst() {
        #expect(ranks([0.5, 2, 0.5, 1]) == [3, 1, 4, 2])
    }

    @Test func movesAreSortedByTheNewPlaceAndKnowHowFarTheyRose() {
        let comparison = RankComparison(items: [7, 8, 9], before: [3, 2, 1], after: [1, 2, 3])
        #expect(comparison.moves.map(\.item) == [9, 8, 7])
        #expect(comparison.moves.map(\.rise) == [2, 0, -2])
    }
}

extension Float {
    fileprivate var logarithm: Float { Float(Foundation.log(Double(self))) }
}
