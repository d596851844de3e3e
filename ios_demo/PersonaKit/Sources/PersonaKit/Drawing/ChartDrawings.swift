/// The charts of a benchmark: how calls are distributed, how configurations compare, how it was
/// before.

import Foundation

/// One configuration of a comparison, in microseconds.
public struct ComparisonBar: Sendable, Hashable {
    public let label: String
    public let p50: Double
    public let p90: Double
    public let p99: Double
    public let valid: Bool
    /// Such as the processors that ran.
    public let detail: String

    public init(
        label: String, p50: Double, p90: Double, p99: Double, valid: Bool, detail: String
    ) {
        self.label = label
        self.p50 = p50
        self.p90 = p90
        self.p99 = p99
        self.valid = valid
        self.detail = detail
    }
}

public enum ChartDrawings {
    private static let textSize = 11.0
    private static let bins = 40

    /// Base and edited over the same bins, from the fastest call to the 99.5th percentile; slower
    /// calls count in the last bin.
    public static func histogram(
        base: [Double], edited: [Double], width: Double, height: Double
    ) -> Drawing {
        let all = base + edited
        guard let fastest = all.min() else {
            return empty(width, height)
        }
        let slowest = max(Statistics.quantile(all, 0.995), fastest * 1.001 + 1e-9)
        let axis = Axis(fastest, slowest, from: 12, to: width - 12)
        let bottom = height - 24
        let top = 44.0
        let series = [(base, Ink.base), (edited, Ink.edited)].map { calls, ink in
            (Statistics.histogram(calls, in: fastest...slowest, bins: bins), ink)
        }
        let tallest = Double(series.flatMap(\.0).max() ?? 1)
        var commands = axis.grid(top: top, bottom: bottom, unit: microseconds)
        let step = (width - 24) / Double(bins)
        for (place, (counts, ink)) in series.enumerated() {
            for (bin, count) in counts.enumerated() where count > 0 {
                let tall = Double(count) / tallest * (bottom - top)
                let bar = DrawRectangle(
                    x: 12 + step * (Double(bin) + 0.5 * Double(place)) + 0.5, y: bottom - tall,
                    width: step / 2 - 0.5, height: tall
                )
                commands.append(.rectangle(bar, ink, radius: 1))
            }
        }
        var words: [String] = []
        for (calls, ink, name, y) in [
            (base, Ink.base, "base", 11.0), (edited, Ink.edited, "edited", 28.0),
        ] where !calls.isEmpty {
            let median = Statistics.quantile(calls, 0.5)
            commands.append(
                .line(
                    from: DrawPoint(x: axis.place(median), y: top),
                    to: DrawPoint(x: axis.place(median), y: bottom), ink, width: 1.5
                )
            )
            let text =
                "\(name) p50 \(microseconds(median)), p99 "
                + microseconds(Statistics.quantile(calls, 0.99))
            commands.append(
                .rectangle(DrawRectangle(x: 12, y: y - 5, width: 10, height: 10), ink, radius: 2)
            )
            commands.append(
                .text(text, at: DrawPoint(x: 27, y: y), .leading, size: textSize, .foreground)
            )
            words.append(text)
        }
        return Drawing(
            width: width, height: height, commands: commands,
            accessibilityLabel: "Latency of single calls: " + words.joined(separator: "; ")
        )
    }

    /// A bar to p50 for each configuration, with whiskers to p90 and p99.
    public static func comparison(
        _ bars: [ComparisonBar], width: Double, height: Double
    ) -> Drawing {
        guard let slowest = bars.map(\.p99).max(), slowest > 0 else {
            return empty(width, height)
        }
        let axis = Axis(0, slowest * 1.02, from: 12, to: width - 12)
        let bottom = height - 24
        let row = bottom / Double(bars.count)
        var commands = axis.grid(top: 0, bottom: bottom, unit: microseconds)
        var words: [String] = []
        for (index, bar) in bars.enumerated() {
            let top = Double(index) * row
            let middle = top + row * 0.74
            let thick = min(row * 0.28, 16)
            let ink: Ink = bar.valid ? .edited : .warning
            commands.append(
                .text(
                    bar.label + (bar.valid ? "" : " (not valid)"),
                    at: DrawPoint(x: 12, y: top + row * 0.14), .leading, size: textSize, .foreground
                )
            )
            commands.append(
                .text(
                    bar.detail, at: DrawPoint(x: 12, y: top + row * 0.4), .leading,
                    size: textSize, .secondary
                )
            )
            commands.append(
                .rectangle(
                    DrawRectangle(
                        x: 12, y: middle - thick / 2, width: axis.place(bar.p50) - 12, height: thick
                    ), ink, radius: 2
                )
            )
            commands.append(
                .line(
                    from: DrawPoint(x: axis.place(bar.p50), y: middle),
                    to: DrawPoint(x: axis.place(bar.p99), y: middle), ink, width: 1.5
                )
            )
            for quantile in [bar.p90, bar.p99] {
                commands.append(
                    .line(
                        from: DrawPoint(x: axis.place(quantile), y: middle - thick / 3),
                        to: DrawPoint(x: axis.place(quantile), y: middle + thick / 3), ink,
                        width: 1.5
                    )
                )
            }
            words.append(
                "\(bar.label): p50 \(microseconds(bar.p50)), p90 \(microseconds(bar.p90)), p99 "
                    + "\(microseconds(bar.p99)), \(bar.detail)\(bar.valid ? "" : ", not valid")"
            )
        }
        return Drawing(
            width: width, height: height, commands: commands,
            accessibilityLabel: words.joined(separator: "; ")
        )
    }

    private static func empty(_ width: Double, _ height: Double) -> Drawing {
        let text = "Nothing measured yet"
        return Drawing(
            width: width, height: height,
            commands: [
                .text(
                    text, at: DrawPoint(x: width / 2, y: height / 2), .center, size: textSize,
                    .secondary
                )
            ],
            accessibilityLabel: text
        )
    }

    /// Such as `840 ns`, `12.5 µs` or `3.21 ms`: three digits that count.
    static func microseconds(_ value: Double) -> String {
        guard value != 0 else { return "0" }
        let (scaled, unit) =
            value < 1 ? (value * 1e3, "ns") : value < 1e3 ? (value, "µs") : (value / 1e3, "ms")
        let digits = scaled < 10 ? 100.0 : scaled < 100 ? 10.0 : 1.0
        let rounded = (scaled * digits).rounded() / digits
        let text = rounded == rounded.rounded() ? String(Int(rounded)) : String(rounded)
        return "\(text) \(unit)"
    }
}

/// A linear axis with ticks at round numbers.
private struct Axis {
    let lower: Double
    let upper: Double
    let first: Double
    let last: Double

    init(_ lower: Double, _ upper: Double, from first: Double, to last: Double) {
        self.lower = lower
        self.upper = upper
        self.first = first
        self.last = last
    }

    func place(_ value: Double) -> Double {
        let share = (value - lower) / (upper - lower)
        return first + min(max(share, 0), 1) * (last - first)
    }

    /// Multiples of 1, 2 or 5 times a power of ten, at most six.
    var ticks: [Double] {
        let rough = (upper - lower) / 5
        let power = pow(10, log10(rough).rounded(.down))
        let step = [1, 2, 5, 10].map { $0 * power }.first { $0 >= rough } ?? rough
        let start = (lower / step).rounded(.up) * step
        return stride(from: start, through: upper, by: step).map { $0 }
    }

    func grid(top: Double, bottom: Double, unit: (Double) -> String) -> [DrawCommand] {
        ticks.flatMap { tick -> [DrawCommand] in
            let x = place(tick)
            return [
                .line(
                    from: DrawPoint(x: x, y: top), to: DrawPoint(x: x, y: bottom), .grid, width: 1
                ),
                .text(
                    unit(tick), at: DrawPoint(x: x, y: bottom + 12), .center, size: 10, .secondary),
            ]
        }
    }
}
