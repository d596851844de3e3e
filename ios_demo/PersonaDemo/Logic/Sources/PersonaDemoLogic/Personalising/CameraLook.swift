// What makes one phone's images differ from another's: they come turned, faint and noisy.
//
// The embedded digits train adapters on devices that each have a look of their own; choosing one here
// makes this phone such a device.

import Foundation

public struct CameraLook: Hashable, Sendable {
    /// Clockwise.
    public var degrees: Double
    /// Factor on every pixel.
    public var contrast: Double
    /// Standard deviation of what is added to every pixel.
    public var noise: Double

    public init(degrees: Double, contrast: Double, noise: Double) {
        self.degrees = degrees
        self.contrast = contrast
        self.noise = noise
    }

    public static let plain = CameraLook(degrees: 0, contrast: 1, noise: 0)

    /// The image as this camera takes it: turned about its middle with bilinear sampling, nothing
    /// beyond the edge.
    public func taken(
        _ pixels: [Float], width: Int, height: Int,
        using generator: inout some RandomNumberGenerator
    ) -> [Float] {
        turned(pixels, width: width, height: height).map { pixel in
            pixel * Float(contrast) + Float(noise * Self.normal(using: &generator))
        }
    }

    private func turned(_ pixels: [Float], width: Int, height: Int) -> [Float] {
        guard degrees != 0 else { return pixels }
        let angle = degrees * .pi / 180
        let (sine, cosine) = (sin(angle), cos(angle))
        let (middleX, middleY) = (Double(width - 1) / 2, Double(height - 1) / 2)
        var image = [Float]()
        image.reserveCapacity(pixels.count)
        for row in 0..<height {
            for column in 0..<width {
                let dx = Double(column) - middleX
                let dy = Double(row) - middleY
                let x = middleX + cosine * dx + sine * dy
                let y = middleY - sine * dx + cosine * dy
                image.append(Self.sample(pixels, width, height, x, y))
            }
        }
        return image
    }

    private static func sample(
        _ pixels: [Float], _ width: Int, _ height: Int, _ x: Double, _ y: Double
    ) -> Float {
        let left = Int(x.rounded(.down))
        let top = Int(y.rounded(.down))
        let right = Float(x - Double(left))
        let below = Float(y - Double(top))
        func pixel(_ column: Int, _ row: Int) -> Float {
            (0..<width).contains(column) && (0..<height).contains(row)
                ? pixels[row * width + column] : 0
        }
        let upper = pixel(left, top) * (1 - right) + pixel(left + 1, top) * right
        let lower = pixel(left, top + 1) * (1 - right) + pixel(left + 1, top + 1) * right
        return upper * (1 - below) + lower * below
    }

    /// Box and Muller.
    private static func normal(using generator: inout some RandomNumberGenerator) -> Double {
        let radius = Double.random(in: Double.leastNonzeroMagnitude...1, using: &generator)
        let angle = Double.random(in: 0..<1, using: &generator)
        return (-2 * log(radius)).squareRoot() * cos(2 * .pi * angle)
    }
}
