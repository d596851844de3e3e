import Foundation

@testable import PersonaKit

/// A draw list as SVG, in light colours.
func svg(_ drawing: Drawing) -> String {
    func colour(_ ink: Ink) -> String {
        switch ink {
        case .foreground: "#1c1c1e"
        case .secondary: "#6c6c70"
        case .grid: "#e0e0e4"
        case .base: "#8e8e93"
        case .edited, .accent: "#0a66d6"
        case .warning: "#d9730d"
        }
    }
    let shapes = drawing.commands.map { command in
        switch command {
        case .line(let a, let b, let ink, let width):
            return """
                <line x1="\(a.x)" y1="\(a.y)" x2="\(b.x)" y2="\(b.y)" \
                stroke="\(colour(ink))" stroke-width="\(width)"/>
                """
        case .rectangle(let r, let ink, let radius):
            return """
                <rect x="\(r.x)" y="\(r.y)" width="\(r.width)" height="\(r.height)" \
                rx="\(radius)" fill="\(colour(ink))"/>
                """
        case .polyline(let points, let ink, let width):
            let places = points.map { "\($0.x),\($0.y)" }.joined(separator: " ")
            return """
                <polyline points="\(places)" fill="none" stroke="\(colour(ink))" \
                stroke-width="\(width)"/>
                """
        case .text(let text, let at, let anchor, let size, let ink):
            let place = ["leading": "start", "center": "middle", "trailing": "end"][
                anchor.rawValue]!
            return """
                <text x="\(at.x)" y="\(at.y + size * 0.35)" font-size="\(size)" fill="\(colour(ink))" \
                font-family="sans-serif" text-anchor="\(place)">\(text)</text>
                """
        }
    }
    return """
        <svg xmlns="http://www.w3.org/2000/svg" width="\(drawing.width)" height="\(drawing.height)">
        <rect width="100%" height="100%" fill="white"/>
        \(shapes.joined(separator: "\n"))
        </svg>
        """
}
