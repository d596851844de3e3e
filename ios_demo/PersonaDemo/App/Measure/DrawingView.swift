// Paints PersonaKit's charts, which are lists of commands, on a Canvas.

import PersonaKit
import SwiftUI

struct DrawingView: View {
    /// In points, before it is fitted to the screen.
    let width, height: Double
    let drawing: (_ width: Double, _ height: Double) -> Drawing

    var body: some View {
        let drawing = drawing(width, height)
        Canvas { context, size in
            context.scaleBy(x: size.width / drawing.width, y: size.height / drawing.height)
            for command in drawing.commands {
                paint(command, in: context)
            }
        }
        .aspectRatio(width / height, contentMode: .fit)
        .accessibilityElement()
        .accessibilityLabel(Text(verbatim: drawing.accessibilityLabel))
    }

    private func paint(_ command: DrawCommand, in context: GraphicsContext) {
        switch command {
        case .line(let from, let to, let ink, let width):
            var path = Path()
            path.addLines([CGPoint(from), CGPoint(to)])
            context.stroke(path, with: .color(ink.color), lineWidth: width)
        case .rectangle(let rectangle, let ink, let radius):
            let path = Path(roundedRect: CGRect(rectangle), cornerRadius: radius)
            context.fill(path, with: .color(ink.color))
        case .polyline(let points, let ink, let width):
            var path = Path()
            path.addLines(points.map(CGPoint.init))
            context.stroke(path, with: .color(ink.color), lineWidth: width)
        case .text(let text, let point, let anchor, let size, let ink):
            let styled = Text(verbatim: text).font(.system(size: size)).foregroundStyle(ink.color)
            context.draw(styled, at: CGPoint(point), anchor: anchor.unitPoint)
        }
    }
}

extension CGPoint {
    fileprivate init(_ point: DrawPoint) {
        self.init(x: point.x, y: point.y)
    }
}

extension CGRect {
    fileprivate init(_ rectangle: DrawRectangle) {
        self.init(
            x: rectangle.x, y: rectangle.y, width: rectangle.width, height: rectangle.height
        )
    }
}

extension TextAnchor {
    fileprivate var unitPoint: UnitPoint {
        switch self {
        case .leading: .leading
        case .center: .center
        case .trailing: .trailing
        }
    }
}

extension Ink {
    fileprivate var color: Color {
        switch self {
        case .foreground: .primary
        case .secondary: .secondary
        case .grid: .gray.opacity(0.3)
        case .base: .gray
        case .edited, .accent: .accentColor
        case .warning: .orange
        }
    }
}
