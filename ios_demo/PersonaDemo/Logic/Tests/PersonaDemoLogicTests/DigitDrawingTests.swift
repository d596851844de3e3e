import Foundation
import Testing

@testable import PersonaDemoLogic

@Suite struct DigitDrawingTests {
    static let small = DigitFrame(width: 8, height: 8)
    static let large = DigitFrame(width: 28, height: 28)

    @Test func nothingDrawnIsBlack() {
        #expect(DigitDrawing().pixels(Self.small) == [Float](repeating: 0, count: 64))
    }

    @Test func theInkIsThatOfThePensOwnShape() {
        // A straight stroke over the height: a bar of the pen's width with a half disc at each end.
        let stroke = DigitDrawing(strokes: [[.init(x: 0.5, y: 0.2), .init(x: 0.5, y: 0.8)]])
        let pen = Self.large.penWidth
        let room = 28 - 2 * Self.large.margin
        let expected = (room - pen) * pen + .pi * pen * pen / 4
        let inked = stroke.pixels(Self.large).reduce(0, +)
        // Four points a pixel: the bar's width is counted in quarters of a pixel.
        #expect(abs(Double(inked) - expected) < 0.25 * room)
    }

    @Test func sizeAndPlaceOfTheDrawingDoNotMatter() {
        let points = [(0.2, 0.1), (0.7, 0.2), (0.3, 0.9), (0.8, 0.8)]
        let first = DigitDrawing(strokes: [points.map { DrawingPoint(x: $0.0, y: $0.1) }])
        let moved = DigitDrawing(
            strokes: [points.map { DrawingPoint(x: $0.0 / 2 + 0.4, y: $0.1 / 2 + 0.1) }]
        )
        let difference = zip(first.pixels(Self.small), moved.pixels(Self.small)).map {
            abs($0 - $1)
        }
        #expect(difference.max()! <= 1 / 16)
    }

    @Test func aDotIsADotInTheMiddle() {
        let pixels = DigitDrawing(strokes: [[.init(x: 0.9, y: 0.1)]]).pixels(Self.large)
        let pen = Self.large.penWidth
        #expect(abs(Double(pixels.reduce(0, +)) - .pi * pen * pen / 4) < 0.1 * pen * pen)
        #expect(pixels[14 * 28 + 14] == 1)
        #expect(pixels[0] == 0)
    }

    @Test func aDrawingGrowsByStrokes() {
        var drawing = DigitDrawing()
        drawing.begin(at: .init(x: 0, y: 0))
        drawing.extend(to: .init(x: 1, y: 1))
        drawing.begin(at: .init(x: 1, y: 0))
        #expect(drawing.strokes.map(\.count) == [2, 1])
        drawing.clear()
        #expect(drawing.isEmpty)
    }

    @Test func theHandDrawsTenDifferentDigitsWithinTheImage() {
        var hand = DigitHand(using: Seeded(seed: 1))
        let images = (0...9).map { hand.draw($0).pixels(Self.small) }
        #expect(Set(images).count == 10)
        for image in images {
            #expect(image.allSatisfy { (0...1).contains($0) })
            #expect((10...35).contains(image.reduce(0, +)))
        }
    }

    @Test func threeDigitsAreMostOfWhatAHandWrites() {
        var generator = Seeded(seed: 4)
        let habits = DigitHabits(using: &generator)
        #expect(Set(habits.favourites).count == 3)
        let written = (0..<10_000).map { _ in habits.next(using: &generator) }
        let favoured = written.filter(habits.favourites.contains).count
        // A favourite also comes up where any digit may: .85 + .15 · .3.
        #expect(abs(Double(favoured) / 10_000 - 0.895) < 0.01)
        #expect(Set(written) == Set(0...9))
    }

    @Test func aQuarterTurnMovesEveryPixelToItsPlace() {
        // Clockwise: what was at the top is at the right.
        var pixels = [Float](repeating: 0, count: 9)
        pixels[1] = 1
        var generator = Seeded(seed: 1)
        let turned = CameraLook(degrees: 90, contrast: 1, noise: 0)
            .taken(pixels, width: 3, height: 3, using: &generator)
        #expect(turned.map { ($0 * 1000).rounded() / 1000 } == [0, 0, 0, 0, 0, 1, 0, 0, 0])
    }

    @Test func contrastAndNoiseAreWhatTheySay() {
        var generator = Seeded(seed: 2)
        let pixels = [Float](repeating: 0.5, count: 10_000)
        let taken = CameraLook(degrees: 0, contrast: 0.4, noise: 0.3)
            .taken(pixels, width: 100, height: 100, using: &generator)
        let mean = taken.reduce(0, +) / 10_000
        let variance = taken.map { ($0 - mean) * ($0 - mean) }.reduce(0, +) / 10_000
        #expect(abs(mean - 0.2) < 0.01)
        #expect(abs(variance.squareRoot() - 0.3) < 0.01)
    }

    @Test func thePlainLookLeavesAnImageAsItIs() {
        var generator = Seeded(seed: 3)
        let pixels: [Float] = [0, 0.25, 0.5, 1]
        #expect(CameraLook.plain.taken(pixels, width: 2, height: 2, using: &generator) == pixels)
    }
}

/// SplitMix64, so that tests draw the same numbers each time.
struct Seeded: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
