// What a finger drew, as the grey image that a digit classifier was trained on.
//
// The public sets of handwritten digits scale a digit to a box, draw it as a bitmap and count inked
// points by pixel; so does this, four by four points a pixel.

import Foundation

/// A place in the drawing area: 0…1 in both directions, y downwards.
public struct DrawingPoint: Hashable, Sendable {
    public let x, y: Double

    public init(x: Double, y: Double) {
        self.x = x
        self.y = y
    }
}

public struct DigitDrawing: Hashable, Sendable {
    public private(set) var strokes: [[DrawingPoint]]

    public init(strokes: [[DrawingPoint]] = []) {
        self.strokes = strokes.filter { !$0.isEmpty }
    }

    public var isEmpty: Bool { strokes.isEmpty }

    public mutating func begin(at point: DrawingPoint) {
        strokes.append([point])
    }

    public mutating func extend(to point: DrawingPoint) {
        guard let last = strokes.indices.last else { return begin(at: point) }
        strokes[last].append(point)
    }

    public mutating func clear() {
        strokes = []
    }

    /// Pixels in 0…1, row by row: the share of each pixel that is inked.
    public func pixels(_ frame: DigitFrame) -> [Float] {
        let placed = placed(in: frame)
        let radius = frame.penWidth / 2
        let fine = Self.pointsPerPixel
        var image = [Float](repeating: 0, count: frame.width * frame.height)
        for row in 0..<frame.height * fine {
            for column in 0..<frame.width * fine {
                let x = (Double(column) + 0.5) / Double(fine)
                let y = (Double(row) + 0.5) / Double(fine)
                if placed.contains(where: { Self.distance(x, y, to: $0) <= radius }) {
                    image[row / fine * frame.width + column / fine] += 1 / Float(fine * fine)
                }
            }
        }
        return image
    }

    private static let pointsPerPixel = 4

    /// The strokes in pixels: as large as the frame's box allows, in its middle.
    private func placed(in frame: DigitFrame) -> [[(x: Double, y: Double)]] {
        let points = strokes.joined()
        guard
            let left = points.map(\.x).min(), let right = points.map(\.x).max(),
            let top = points.map(\.y).min(), let bottom = points.map(\.y).max()
        else { return [] }
        let width = Double(frame.width)
        let height = Double(frame.height)
        let roomX = width - 2 * frame.margin - frame.penWidth
        let roomY = height - 2 * frame.margin - frame.penWidth
        // A dot has no size that could be scaled.
        let scale = min(
            roomX / max(right - left, Self.smallestExtent),
            roomY / max(bottom - top, Self.smallestExtent)
        )
        return strokes.map { stroke in
            stroke.map { point in
                (
                    width / 2 + (point.x - (left + right) / 2) * scale,
                    height / 2 + (point.y - (top + bottom) / 2) * scale
                )
            }
        }
    }

    private static let smallestExtent = 0.1

    /// From a point to the nearest place of a stroke.
    private static func distance(
        _ x: Double, _ y: Double, to stroke: [(x: Double, y: Double)]
    ) -> Double {
        var nearest = hypot(x - stroke[0].x, y - stroke[0].y)
        for (a, b) in zip(stroke, stroke.dropFirst()) {
            let dx = b.x - a.x
            let dy = b.y - a.y
            let length = dx * dx + dy * dy
            let along = length == 0 ? 0 : ((x - a.x) * dx + (y - a.y) * dy) / length
            let t = min(max(along, 0), 1)
            nearest = min(nearest, hypot(x - a.x - t * dx, y - a.y - t * dy))
        }
        return nearest
    }
}

/// Size and place of a digit in a training image, in pixels.
public struct DigitFrame: Hashable, Sendable {
    public let width, height: Int
    /// Free on every side.
    public let margin: Double
    public let penWidth: Double

    /// Small images are filled to the edge; of larger ones a seventh is free on every side.
    public init(width: Int, height: Int) {
        let shorter = Double(min(width, height))
        self.width = width
        self.height = height
        margin = shorter <= 10 ? 0 : shorter / 7
        penWidth = (shorter - 2 * margin) * 0.16
    }
}
