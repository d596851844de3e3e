// One way of running a program, in full: latency, loads, processors, memory, heat, and whether to
// believe it.

import Charts
import PersonaDemoLogic
import PersonaKit
import SwiftUI

struct ResultView: View {
    let result: BenchmarkResult

    var body: some View {
        List {
            if case .invalid(let reasons) = result.validity {
                Section {
                    ForEach(reasons, id: \.self) { reason in
                        Label(reason.message, systemImage: "exclamationmark.triangle.fill")
                            .foregroundStyle(.orange)
                    }
                } header: {
                    Text("Not valid")
                } footer: {
                    Text("It is kept and shown, but not sent and never a baseline.")
                }
            }
            Section {
                LatencyHistogram(
                    base: result.baseMicroseconds, edited: result.editedMicroseconds
                )
                LatencyTable(base: result.measurement.base, edited: result.measurement.edited)
                LabeledContent("Edited ÷ base") {
                    Text(result.measurement.ratio, format: .number.precision(.fractionLength(3)))
                }
            } header: {
                Text("One call")
            }
            Section {
                if let firstEver = result.loads.firstEver {
                    LabeledContent("First ever", value: firstEver.milliseconds)
                }
                if let cold = result.loads.cold {
                    LabeledContent("Cold", value: cold.milliseconds)
                }
                LabeledContent("Warm", value: result.loads.warm.milliseconds)
                if let active = result.measurement.editToActiveMilliseconds {
                    LabeledContent("Edit to active", value: active.milliseconds)
                }
            } header: {
                Text("Loading")
            } footer: {
                Text(
                    """
                    First ever: compiled for this phone. Cold: the first after the app’s start. \
                    Warm: again at once.
                    """
                )
            }
            PlacementSection(placement: result.placement)
            Section {
                if let bytes = result.memoryBytes {
                    LabeledContent(
                        "Memory of the app", value: bytes.formatted(.byteCount(style: .memory))
                    )
                }
                LabeledContent("Heat before") { Text(result.thermalBefore.title) }
                LabeledContent("Heat after") { Text(result.thermalAfter.title) }
                LabeledContent("Measured") { Text(result.startedAt, format: .dateTime) }
            } header: {
                Text("Conditions")
            }
        }
        .navigationTitle(Text(verbatim: result.label))
        .navigationBarTitleDisplayMode(.inline)
    }
}

/// p50, p90, p99 and the mean of both.
private struct LatencyTable: View {
    let base, edited: Latency

    var body: some View {
        Grid(alignment: .trailing, horizontalSpacing: 12, verticalSpacing: 6) {
            GridRow {
                Text(verbatim: "")
                Text("Base")
                Text("Edited")
            }
            .font(.caption)
            .foregroundStyle(.secondary)
            row("p50", base.p50, edited.p50)
            row("p90", base.p90, edited.p90)
            row("p99", base.p99, edited.p99)
            row("Mean", base.mean, edited.mean)
        }
        .font(.body.monospacedDigit())
        .frame(maxWidth: .infinity)
    }

    private func row(_ title: LocalizedStringKey, _ base: Double, _ edited: Double) -> some View {
        GridRow {
            Text(title).gridColumnAlignment(.leading)
            Text(base.microseconds)
            Text(edited.microseconds)
        }
        .accessibilityElement(children: .combine)
    }
}

/// Which processor runs how many operators: where they are placed, not what was asked for.
struct PlacementSection: View {
    let placement: Placement

    var body: some View {
        Section {
            switch placement.source {
            case .computePlan:
                ForEach(placement.processors, id: \.processor) { share in
                    ProcessorRow(share: share)
                }
            case .delegates(let backends):
                Text(placement.title)
                if !backends.isEmpty {
                    LabeledContent("Calls of delegates", value: backends.count, format: .number)
                }
            case .unknown(let reason):
                Text(verbatim: reason)
            }
        } header: {
            Text("Processors")
        } footer: {
            if placement.source == .computePlan {
                Text("As Core ML’s compute plan prefers for each operator on this phone.")
            }
        }
    }
}

private struct ProcessorRow: View {
    let share: ProcessorShare

    var body: some View {
        LabeledContent {
            VStack(alignment: .trailing) {
                Text("\(share.operators) operators")
                if let cost = share.cost {
                    Text("\(cost.formatted(.percent.precision(.fractionLength(0)))) of the cost")
                        .font(.footnote)
                }
            }
        } label: {
            Label {
                Text(share.processor.title)
            } icon: {
                Image(systemName: share.processor.symbol)
            }
        }
        .accessibilityElement(children: .combine)
    }
}
