// Earlier measurements of each way of running, with a baseline to compare with.

import Charts
import PersonaDemoLogic
import PersonaKit
import SwiftUI

struct HistoryView: View {
    let model: MeasureModel

    var body: some View {
        List {
            ForEach(model.histories) { history in
                Section {
                    HistoryChart(history: history)
                    ForEach(history.entries) { entry in
                        HistoryRow(entry: entry, baseline: history.baseline)
                            .swipeActions {
                                if entry.isValid {
                                    Button("Baseline") { model.setBaseline(entry.id) }
                                        .tint(.accentColor)
                                }
                            }
                            .contextMenu {
                                if entry.isValid {
                                    Button("Use as baseline") { model.setBaseline(entry.id) }
                                }
                            }
                            .accessibilityActions {
                                if entry.isValid {
                                    Button("Use as baseline") { model.setBaseline(entry.id) }
                                }
                            }
                    }
                } header: {
                    Text(verbatim: history.label)
                }
            }
        }
        .navigationTitle("Earlier measurements")
    }
}

private struct HistoryChart: View {
    let history: LatencyHistory

    var body: some View {
        Chart {
            ForEach(history.entries) { entry in
                PointMark(
                    x: .value("When", entry.date),
                    y: .value("Median", entry.p50)
                )
                .foregroundStyle(entry.isValid ? Color.accentColor : Color.orange)
                .symbol(entry.isValid ? BasicChartSymbolShape.circle : BasicChartSymbolShape.cross)
            }
            if let baseline = history.baseline {
                RuleMark(y: .value("Median", baseline.p50))
                    .lineStyle(StrokeStyle(lineWidth: 1, dash: [4, 3]))
                    .foregroundStyle(.secondary)
                    .annotation(position: .top, alignment: .leading) {
                        Text("Baseline").font(.caption2)
                    }
            }
        }
        .chartYAxisLabel("Microseconds")
        .frame(minHeight: 160)
        .accessibilityLabel("Median of the edited calls over time")
    }
}

private struct HistoryRow: View {
    let entry: LatencyHistory.Entry
    let baseline: LatencyHistory.Entry?

    var body: some View {
        HStack {
            VStack(alignment: .leading) {
                Text(entry.date, format: .dateTime)
                if !entry.isValid {
                    Text("Not valid").font(.caption).foregroundStyle(.orange)
                }
            }
            Spacer()
            VStack(alignment: .trailing) {
                Text(entry.p50.microseconds).monospacedDigit()
                if entry.id == baseline?.id {
                    Text("Baseline").font(.caption)
                } else if let baseline, entry.isValid {
                    Text(
                        entry.p50 / baseline.p50 - 1,
                        format: .percent.precision(.fractionLength(1)).sign(strategy: .always())
                    )
                    .font(.caption.monospacedDigit())
                    .foregroundStyle(.secondary)
                }
            }
        }
        .accessibilityElement(children: .combine)
    }
}
