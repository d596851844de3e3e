// The Measure screen: choose programs and processors, run, and see what each costs.

import PersonaDemoLogic
import PersonaKit
import SwiftUI

struct MeasureView: View {
    @Bindable var model: MeasureModel
    let personalise: PersonaliseModel

    var body: some View {
        NavigationStack {
            List {
                switch model.state {
                case .idle:
                    PlanSections(model: model)
                case .running(let progress):
                    ProgressSection(progress: progress) { model.stop() }
                case .finished(let findings):
                    FindingsSections(model: model, findings: findings)
                    PlanSections(model: model)
                }
                if let failure = model.notKept {
                    Section { FailureRow(failure: failure) }
                }
                if !model.histories.isEmpty, !model.isRunning {
                    Section {
                        NavigationLink("Earlier measurements") { HistoryView(model: model) }
                            .accessibilityIdentifier("history")
                    }
                }
            }
            .navigationTitle("Measure")
            .safeAreaInset(edge: .bottom) {
                if !model.isRunning {
                    Button("Measure") {
                        model.start(editToActiveMilliseconds: personalise.editToActiveMilliseconds)
                    }
                    .buttonStyle(.borderedProminent)
                    .controlSize(.large)
                    .disabled(!model.canStart)
                    .padding()
                    .accessibilityIdentifier("measure")
                }
            }
        }
        .onChange(of: model.isRunning) { _, isRunning in
            UIApplication.shared.isIdleTimerDisabled = isRunning
        }
    }
}

/// What is run, and how often.
private struct PlanSections: View {
    @Bindable var model: MeasureModel

    var body: some View {
        ForEach(model.programs, id: \.self) { program in
            Section {
                ForEach(model.choices.filter { $0.program == program }) { choice in
                    Toggle(choice.label, isOn: $model[isOn: choice.id])
                }
            } header: {
                Text(verbatim: program)
            }
        }
        Section {
            Stepper(value: $model.iterations, in: 20...2000, step: 20) {
                LabeledContent("Calls of each", value: model.iterations, format: .number)
            }
            Stepper(value: $model.warmUp, in: 0...200, step: 10) {
                LabeledContent("Warm-up calls", value: model.warmUp, format: .number)
            }
            Stepper(value: $model.coolDownSeconds, in: 0...60, step: 1) {
                LabeledContent("Pause before each, in seconds") {
                    Text(model.coolDownSeconds, format: .number)
                }
            }
        } header: {
            Text("Plan")
        } footer: {
            Text("Base and edited calls take turns, so that a noisy moment hits both.")
        }
    }
}

private struct ProgressSection: View {
    let progress: MeasureModel.Progress
    let stop: @MainActor () -> Void

    var body: some View {
        Section {
            ProgressView(value: progress.overall) {
                Text(verbatim: progress.label)
            } currentValueLabel: {
                Text("\(progress.index) of \(progress.count)")
            }
            Button("Stop", role: .destructive, action: stop)
                .accessibilityIdentifier("stop")
        } footer: {
            Text("Leave the phone alone: touching it costs time that is measured.")
        }
    }
}

private struct FindingsSections: View {
    let model: MeasureModel
    let findings: [MeasureModel.Finding]

    var body: some View {
        if model.results.count > 1 {
            Section {
                DrawingView(width: 360, height: 44 + 56 * Double(model.results.count)) {
                    width, height in
                    ChartDrawings.comparison(model.bars, width: width, height: height)
                }
            } header: {
                Text("Side by side")
            }
        }
        Section {
            ForEach(findings) { finding in
                switch finding {
                case .measured(let result):
                    NavigationLink {
                        ResultView(result: result)
                    } label: {
                        ResultRow(result: result)
                    }
                case .failed(let label, let failure):
                    VStack(alignment: .leading) {
                        Text(verbatim: label)
                        FailureRow(failure: failure)
                    }
                }
            }
        } header: {
            Text("Results")
        }
        Section {
            ShareLink(item: ReportFile(model.report()), preview: SharePreview(ReportFile.name)) {
                Label("Share as JSON", systemImage: "square.and.arrow.up")
            }
            .accessibilityIdentifier("share")
            Button {
                Task { await model.sendToCloud() }
            } label: {
                Label("Send to the cloud", systemImage: "icloud.and.arrow.up")
            }
            .disabled(!model.canUpload)
            switch model.upload {
            case .none: EmptyView()
            case .sending: ProgressView()
            case .sent(let count):
                Label("Sent: \(count)", systemImage: "checkmark.circle.fill")
                    .foregroundStyle(.green)
            case .failed(let failure): FailureRow(failure: failure)
            }
        } footer: {
            Text("Only valid results are sent. A report names the phone’s model and no person.")
        }
    }
}

struct ResultRow: View {
    let result: BenchmarkResult

    var body: some View {
        VStack(alignment: .leading, spacing: 4) {
            Text(verbatim: result.label).font(.headline)
            Text(
                """
                \(result.measurement.edited.p50.microseconds) edited, \
                \(result.measurement.base.p50.microseconds) base
                """
            )
            .font(.subheadline.monospacedDigit())
            Label {
                Text(result.placement.title)
            } icon: {
                Image(systemName: result.placement.symbol)
            }
            .font(.footnote)
            .foregroundStyle(.secondary)
            if case .invalid = result.validity {
                Label("Not valid", systemImage: "exclamationmark.triangle.fill")
                    .font(.footnote)
                    .foregroundStyle(.orange)
            }
        }
        .accessibilityElement(children: .combine)
    }
}
