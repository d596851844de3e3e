/// Pictures as lists of commands: an app draws them on a canvas, a test writes them as SVG.

import Foundation

public struct DrawPoint: Sendable, Equatable {
    public let x: Double
    public let y: Double

    public init(x: Double, y: Double) {
        self.x = x
        self.y = y
    }
}

public struct DrawRectangle: Sendable, Equatable {
    public let x: Double
    public let y: Double
    public let width: Double
    public let height: Double

    public init(x: Double, y: Double, width: Double, height: Double) {
        self.x = x
        self.y = y
        self.width = width
        self.height = height
    }
}

/// What a colour is for; the app says which it is, in light and in dark.
public enum Ink: String, Sendable, CaseIterable {
    case foreground
    case secondary
    case grid
    case base
    case edited
    case warning
    case accent
}

/// Which point of a text lies at its position; vertically its middle.
public enum TextAnchor: String, Sendable, CaseIterable {
    case leading
    case center
    case trailing
}

public enum DrawCommand: Sendable, Equatable {
    case line(from: DrawPoint, to: DrawPoint, Ink, width: Double)
    /// Filled.
    case rectangle(DrawRectangle, Ink, radius: Double)
    case polyline([DrawPoint], Ink, width: Double)
    case text(String, at: DrawPoint, TextAnchor, size: Double, Ink)
}

/// The origin is the upper left corner; the first command is drawn first.
public struct Drawing: Sendable, Equatable {
    public let width: Double
    public let height: Double
    public let commands: [DrawCommand]
    /// What the picture says, for those who do not see it.
    public let accessibilityLabel: String
}
