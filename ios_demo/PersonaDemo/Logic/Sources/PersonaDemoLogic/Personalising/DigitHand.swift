// A hand that draws digits by itself, to fill a window without twenty drawings by finger.
//
// Each digit is a few strokes in the unit square, slanted, stretched and shaken a little anew each
// time.

import Foundation

public struct DigitHand<Generator: RandomNumberGenerator> {
    private var generator: Generator
    private let slant: Double
    private let tremor: Double

    /// slant: sideways shift from bottom to top, as a share of the height.
    public init(slant: Double = 0.1, tremor: Double = 0.015, using generator: Generator) {
        self.slant = slant
        self.tremor = tremor
        self.generator = generator
    }

    /// Precondition: `digit` is 0…9.
    public mutating func draw(_ digit: Int) -> DigitDrawing {
        let lean = slant * Double.random(in: 0.5...1.5, using: &generator)
        let breadth = Double.random(in: 0.85...1.15, using: &generator)
        var strokes = [[DrawingPoint]]()
        for stroke in Self.strokes[digit] {
            strokes.append(
                stroke.map { x, y in
                    DrawingPoint(
                        x: 0.5 + (x - 0.5) * breadth + (0.5 - y) * lean + shake(),
                        y: y + shake()
                    )
                }
            )
        }
        return DigitDrawing(strokes: strokes)
    }

    private mutating func shake() -> Double {
        Double.random(in: -tremor...tremor, using: &generator)
    }

    private typealias Path = [(Double, Double)]

    private static var strokes: [[Path]] {
        [
            [arc(0.5, 0.5, 0.26, 0.4, from: -90, to: 270)],
            [[(0.36, 0.26), (0.54, 0.1), (0.54, 0.9)]],
            [arc(0.5, 0.32, 0.24, 0.22, from: -170, to: 40) + [(0.26, 0.9), (0.76, 0.9)]],
            [
                arc(0.48, 0.3, 0.23, 0.2, from: -160, to: 90)
                    + arc(0.48, 0.7, 0.26, 0.2, from: -90, to: 160)
            ],
            [[(0.58, 0.1), (0.26, 0.62), (0.78, 0.62)], [(0.62, 0.4), (0.62, 0.9)]],
            [
                [(0.7, 0.1), (0.36, 0.1), (0.32, 0.46)]
                    + arc(0.48, 0.66, 0.25, 0.24, from: -110, to: 150)
            ],
            [
                [(0.62, 0.1), (0.4, 0.34), (0.28, 0.6)]
                    + arc(0.5, 0.69, 0.22, 0.21, from: 180, to: -180)
            ],
            [[(0.26, 0.1), (0.74, 0.1), (0.44, 0.9)]],
            [
                arc(0.5, 0.3, 0.16, 0.2, from: 90, to: 450)
                    + arc(0.5, 0.7, 0.19, 0.2, from: -90, to: 270)
            ],
            [
                arc(0.5, 0.31, 0.22, 0.21, from: 0, to: -360)
                    + [(0.7, 0.6), (0.56, 0.9)]
            ],
        ]
    }

    /// Angles in degrees, clockwise from the right.
    private static func arc(
        _ x: Double, _ y: Double, _ radiusX: Double, _ radiusY: Double, from: Double, to: Double
    ) -> Path {
        let steps = 16
        return (0...steps).map { step in
            let angle = (from + (to - from) * Double(step) / Double(steps)) * .pi / 180
            return (x + radiusX * cos(angle), y + radiusY * sin(angle))
        }
    }
}
