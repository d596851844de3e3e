// The Personalise screen: what runs, live samples before and after, and the way to an edit and back.

import PersonaDemoLogic
import SwiftUI

struct PersonaliseView: View {
    let app: AppModel
    let session: Session

    var body: some View {
        NavigationStack {
            List {
                RunningSection(model: session.personalise)
                RequestSection(model: session.personalise)
                SamplesSection(model: session.personalise)
                Section {
                    LabeledContent("Model", value: session.bundle.manifest.model)
                    LabeledContent("Runs by", value: session.engine)
                    LabeledContent("Cloud") {
                        if let cloud = session.cloud {
                            Text(verbatim: cloud.text)
                        } else {
                            Text("None: the bundle came with the app")
                        }
                    }
                    Button("Use another cloud or bundle", role: .destructive) { app.disconnect() }
                } header: {
                    Text("Bundle")
                }
            }
            .navigationTitle("Personalise")
            .refreshable { await session.personalise.refresh() }
        }
    }
}

/// What runs now.
private struct RunningSection: View {
    let model: PersonaliseModel

    var body: some View {
        Section {
            Label {
                Text(title)
            } icon: {
                Image(systemName: symbol)
            }
            .font(.headline)
            .accessibilityIdentifier("running")
            if case .edit(let edit) = model.running {
                LabeledContent("Made") { Text(edit.issuedAt, style: .relative) }
                LabeledContent("Good until") { Text(edit.expiresAt, format: .dateTime) }
                LabeledContent(
                    "Size", value: edit.bytes.formatted(.byteCount(style: .file))
                )
                LabeledContent("Around prototype") {
                    if let prototype = edit.prototype {
                        Text(prototype, format: .number)
                    } else {
                        Text("None")
                    }
                }
                LabeledContent("From") { Text(edit.source.title) }
            }
            if model.running != .base {
                Button("Take it back", role: .destructive) { Task { await model.rollBack() } }
                    .disabled(model.activity != .idle)
                    .accessibilityHint("The base runs again, also after a restart.")
                    .accessibilityIdentifier("roll-back")
            }
        } header: {
            Text("Running now")
        }
    }

    private var title: LocalizedStringResource {
        switch model.running {
        case .base: "The base, as it was shipped"
        case .prototype(let index): "Prototype \(index), chosen on this phone"
        case .edit(let edit): "Your own edit, number \(edit.sequence)"
        }
    }

    private var symbol: String {
        switch model.running {
        case .base: "cube"
        case .prototype: "person.2"
        case .edit: "person.crop.circle.badge.checkmark"
        }
    }
}

/// Asking for an edit, by hand or by the gate, and how that went.
private struct RequestSection: View {
    @Bindable var model: PersonaliseModel

    var body: some View {
        Section {
            Button {
                Task { await model.ask() }
            } label: {
                HStack {
                    Text("Personalise now")
                    Spacer()
                    if model.activity == .asking { ProgressView() }
                }
            }
            .disabled(!model.canAsk)
            .accessibilityIdentifier("ask")
            Toggle("Ask when the window has drifted", isOn: $model.automatic.isOn)
                .accessibilityIdentifier("automatic")
            if let drift = model.drift {
                LabeledContent("Gate") { Text(drift.title) }
            }
            if let outcome = model.outcome {
                OutcomeRow(outcome: outcome)
            }
        } header: {
            Text("Edit")
        } footer: {
            switch model.reach {
            case .offline(let since, _):
                Label {
                    Text(
                        """
                        No answer from the cloud since \(since, style: .time). \
                        What runs now goes on running.
                        """
                    )
                } icon: {
                    Image(systemName: "wifi.slash")
                }
                .accessibilityElement(children: .combine)
                .accessibilityIdentifier("offline")
            case .noCloud:
                Text("Without a cloud this phone chooses one of the bundle’s prototypes.")
            case .unknown, .online:
                if !model.isReady {
                    Text("The window has \(model.count) of \(model.minCount) samples.")
                }
            }
        }
    }
}

private struct OutcomeRow: View {
    let outcome: RequestOutcome

    var body: some View {
        switch outcome {
        case .newEdit(let bytes, let toActive, let roundTrip):
            VStack(alignment: .leading, spacing: 4) {
                Label("New edit is active", systemImage: "checkmark.circle.fill")
                    .foregroundStyle(.green)
                Text(
                    """
                    \(bytes.formatted(.byteCount(style: .file))), \
                    \(roundTrip.milliseconds) to the cloud and back, \
                    \(toActive.milliseconds) until it was active
                    """
                )
                .font(.footnote)
                .foregroundStyle(.secondary)
            }
            .accessibilityElement(children: .combine)
            .accessibilityIdentifier("new-edit")
        case .kept(let failure):
            FailureRow(failure: failure)
        }
    }
}

private struct SamplesSection: View {
    let model: PersonaliseModel

    var body: some View {
        switch model.samples {
        case .digits(let digits):
            DigitsSection(model: model, digits: digits)
        case .items(let deck, let comparison):
            DeckSection(model: model, deck: deck, comparison: comparison)
        case .golden(let compared):
            Section {
                ForEach(compared) { golden in
                    VStack(alignment: .leading) {
                        Text("Golden input \(golden.id + 1)").font(.subheadline)
                        ClassChart(comparison: golden.comparison)
                    }
                }
            } header: {
                Text("Before and after")
            } footer: {
                Text(
                    "This model takes what a finger cannot give; these are the bundle’s own inputs."
                )
            }
        }
    }
}
