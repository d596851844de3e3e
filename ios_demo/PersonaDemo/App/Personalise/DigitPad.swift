// A square that is drawn on with a finger. Lifting it for a moment ends the digit.

import PersonaDemoLogic
import SwiftUI

struct DigitPad: View {
    let finish: @MainActor (DigitDrawing) -> Void
    @State private var drawing = DigitDrawing()
    @State private var isTouched = false
    @State private var ending: Task<Void, Never>?

    private static let pause = Duration.milliseconds(700)

    var body: some View {
        GeometryReader { geometry in
            let side = min(geometry.size.width, geometry.size.height)
            Canvas { context, _ in
                for stroke in drawing.strokes {
                    context.stroke(
                        path(stroke, side: side), with: .color(.primary),
                        style: StrokeStyle(
                            lineWidth: side * 0.08, lineCap: .round, lineJoin: .round
                        )
                    )
                }
            }
            .frame(width: side, height: side)
            .background(.quaternary, in: RoundedRectangle(cornerRadius: 12))
            .contentShape(Rectangle())
            .gesture(drag(side: side))
            .frame(maxWidth: .infinity)
        }
        .aspectRatio(1.4, contentMode: .fit)
        .accessibilityElement()
        .accessibilityLabel("Drawing area")
        .accessibilityHint("Draw a digit with one finger.")
        .accessibilityAddTraits(.allowsDirectInteraction)
        .accessibilityIdentifier("pad")
    }

    private func drag(side: Double) -> some Gesture {
        DragGesture(minimumDistance: 0)
            .onChanged { touch in
                ending?.cancel()
                let point = DrawingPoint(x: touch.location.x / side, y: touch.location.y / side)
                if isTouched {
                    drawing.extend(to: point)
                } else {
                    isTouched = true
                    drawing.begin(at: point)
                }
            }
            .onEnded { _ in
                isTouched = false
                ending = Task {
                    try? await Task.sleep(for: Self.pause)
                    guard !Task.isCancelled else { return }
                    finish(drawing)
                    drawing.clear()
                }
            }
    }

    private func path(_ stroke: [DrawingPoint], side: Double) -> Path {
        var path = Path()
        let points = stroke.map { CGPoint(x: $0.x * side, y: $0.y * side) }
        path.addLines(points + points.suffix(1))
        return path
    }
}

/// Grey pixels, magnified without smoothing.
struct PixelImage: View {
    let pixels: [Float]
    let width: Int

    var body: some View {
        Canvas { context, size in
            let side = size.width / Double(width)
            for (place, pixel) in pixels.enumerated() {
                let square = CGRect(
                    x: Double(place % width) * side, y: Double(place / width) * side,
                    width: side, height: side
                )
                let level = Double(min(max(pixel, 0), 1))
                context.fill(Path(square), with: .color(Color(white: level)))
            }
        }
        .clipShape(RoundedRectangle(cornerRadius: 6))
        .accessibilityHidden(true)
    }
}
