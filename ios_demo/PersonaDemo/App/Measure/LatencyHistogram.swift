// How the calls' times are spread, base beside edited, with p50, p90 and p99 of the edited ones.

import Charts
import PersonaDemoLogic
import SwiftUI

struct LatencyHistogram: View {
    let histogram: LatencyBins

    init(base: [Double], edited: [Double]) {
        histogram = LatencyBins(base: base, edited: edited)
    }

    var body: some View {
        Chart {
            ForEach(histogram.bins) { bin in
                RectangleMark(
                    xStart: .value("From", bin.lower), xEnd: .value("To", bin.upper),
                    yStart: .value("Calls", 0), yEnd: .value("Calls", bin.base)
                )
                .foregroundStyle(by: .value("Model", base))
                RectangleMark(
                    xStart: .value("From", bin.lower), xEnd: .value("To", bin.upper),
                    yStart: .value("Calls", 0), yEnd: .value("Calls", bin.edited)
                )
                .foregroundStyle(by: .value("Model", edited))
                .opacity(0.6)
            }
            ForEach(histogram.marks) { mark in
                RuleMark(x: .value("Time", mark.microseconds))
                    .lineStyle(StrokeStyle(lineWidth: 1, dash: [4, 3]))
                    .foregroundStyle(.secondary)
                    .annotation(position: .top, spacing: 2) {
                        Text(verbatim: mark.name).font(.caption2)
                    }
            }
        }
        .chartForegroundStyleScale([base: Color.secondary, edited: Color.accentColor])
        .chartXAxisLabel("Microseconds")
        .chartYAxisLabel("Calls")
        .frame(minHeight: 220)
        .padding(.top, 12)
        .accessibilityLabel("Times of the calls")
    }

    private var base: String { String(localized: "Base") }
    private var edited: String { String(localized: "Edited") }
}
