// The likeliest classes of one sample, by the base and by what runs now.

import Charts
import PersonaDemoLogic
import SwiftUI

struct ClassChart: View {
    let comparison: ClassComparison

    private static let shown = 5

    var body: some View {
        Chart {
            ForEach(comparison.leading(Self.shown)) { share in
                BarMark(
                    x: .value("Share", share.before),
                    y: .value("Class", String(share.label))
                )
                .foregroundStyle(by: .value("Model", base))
                .position(by: .value("Model", base))
                BarMark(
                    x: .value("Share", share.after),
                    y: .value("Class", String(share.label))
                )
                .foregroundStyle(by: .value("Model", now))
                .position(by: .value("Model", now))
            }
        }
        .chartXScale(domain: 0...1)
        .chartXAxis {
            AxisMarks(format: FloatingPointFormatStyle<Double>.Percent())
        }
        .chartForegroundStyleScale([base: Color.secondary, now: Color.accentColor])
        .frame(minHeight: 180)
        .accessibilityLabel("Answers before and after")
    }

    private var base: String { String(localized: "Base") }
    private var now: String { String(localized: "Now") }
}
