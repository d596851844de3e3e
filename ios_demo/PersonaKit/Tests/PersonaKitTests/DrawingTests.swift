import Foundation
import Testing

@testable import PersonaKit

struct DrawingTests {
    /// Times with a long tail, the same on each run.
    private func times(_ centre: Double) -> [Double] {
        (0..<400).map { index in
            let phase = Double(index) * 0.61803398875
            let uniform = phase - phase.rounded(.down)
            return centre * (0.95 + 0.05 * -log(1 - uniform * 0.999))
        }
    }

    private var histogram: Drawing {
        ChartDrawings.histogram(base: times(27), edited: times(29), width: 360, height: 200)
    }

    private var comparison: Drawing {
        ChartDrawings.comparison(
            [
                ComparisonBar(
                    label: "coreml fp16, cpuOnly", p50: 210, p90: 240, p99: 330, valid: true,
                    detail: "cpu 24 of 24"
                ),
                ComparisonBar(
                    label: "coreml fp16, cpuAndGPU", p50: 640, p90: 720, p99: 1400, valid: false,
                    detail: "gpu 20 of 24, cpu 4 of 24"
                ),
                ComparisonBar(
                    label: "coreml fp16, all", p50: 180, p90: 190, p99: 260, valid: true,
                    detail: "neural-engine 22 of 24"
                ),
                ComparisonBar(
                    label: "executorch-xnnpack fp32", p50: 28, p90: 31, p99: 44, valid: true,
                    detail: "XnnpackBackend"
                ),
            ], width: 360, height: 260
        )
    }

    @Test func barsOfAHistogramHoldAllCallsAndStayInside() {
        var heights = [Ink: Double]()
        for case .rectangle(let bar, let ink, _) in histogram.commands where bar.y > 40 {
            heights[ink, default: 0] += bar.height
            #expect(bar.x >= 0 && bar.x + bar.width <= 360 && bar.y + bar.height <= 176.001)
        }
        // Both have 400 calls, so their bars have one area.
        #expect(abs(heights[.base]! / heights[.edited]! - 1) < 1e-9)
    }

    @Test func theBarOfAComparisonEndsAtItsMedianOnTheAxis() {
        let bars = comparison.commands.compactMap { command -> DrawRectangle? in
            if case .rectangle(let bar, _, _) = command { bar } else { nil }
        }
        #expect(bars.count == 4)
        #expect(abs(bars[0].width / bars[2].width - 210.0 / 180) < 1e-9)
    }

    @Test func anInvalidResultIsMarkedForEyesAndEars() {
        let inks = comparison.commands.compactMap { command -> Ink? in
            if case .rectangle(_, let ink, _) = command { ink } else { nil }
        }
        #expect(inks == [.edited, .warning, .edited, .edited])
        #expect(comparison.accessibilityLabel.contains("gpu 20 of 24, cpu 4 of 24, not valid"))
    }

    @Test func durationsHaveThreeDigitsThatCount() {
        let texts = [0.84, 12.5, 27.04, 3210, 999].map(ChartDrawings.microseconds)
        #expect(texts == ["840 ns", "12.5 µs", "27 µs", "3.21 ms", "999 µs"])
    }

    @Test func nothingMeasuredIsSaid() {
        let empty = ChartDrawings.histogram(base: [], edited: [], width: 100, height: 50)
        #expect(empty.accessibilityLabel == "Nothing measured yet")
    }

    @Test func picturesAreWrittenWhereTheyAreAskedFor() throws {
        guard let folder = ProcessInfo.processInfo.environment["PERSONA_PICTURES"] else { return }
        for (name, drawing) in [("histogram", histogram), ("comparison", comparison)] {
            try svg(drawing).write(
                to: URL(filePath: folder).appending(path: "\(name).svg"), atomically: true,
                encoding: .utf8
            )
        }
    }
}
