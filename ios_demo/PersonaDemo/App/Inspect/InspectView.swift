// The Inspect screen: the manifest, slots, prototypes and programs, and what was verified how.

import PersonaDemoLogic
import PersonaKit
import SwiftUI

struct InspectView: View {
    let model: InspectModel

    var body: some View {
        NavigationStack {
            List {
                manifest
                device
                if let placement = model.placement {
                    PlacementSection(placement: placement)
                }
                slots
                programs
                log
            }
            .navigationTitle("Inspect")
            .task { await model.refresh() }
            .refreshable { await model.refresh() }
        }
    }

    private var manifest: some View {
        Section {
            LabeledContent("Model", value: model.bundle.manifest.model)
            LabeledContent("Made", value: model.bundle.manifest.createdAt)
            DigestRow(title: "Bundle", digest: model.bundle.digest)
            DigestRow(title: "Signed by", digest: model.bundle.keyID)
            LabeledContent(
                "Prototypes", value: model.bundle.manifest.prototypeCount, format: .number
            )
            LabeledContent(
                "Golden inputs", value: model.bundle.golden.inputs.count, format: .number)
            NavigationLink("All of the manifest") { ManifestView(manifest: model.manifestText) }
        } header: {
            Text("Bundle")
        }
    }

    private var device: some View {
        Section {
            if let device = model.device {
                DigestRow(title: "Device", digest: device)
                LabeledContent("Newest edit", value: model.sequence, format: .number)
            } else {
                Text("The cloud does not know this phone yet.")
            }
        } header: {
            Text("Device")
        }
    }

    private var slots: some View {
        Section {
            ForEach(model.slots) { slot in
                VStack(alignment: .leading, spacing: 2) {
                    Text(verbatim: slot.name).font(.body.monospaced())
                    Text("\(Text(slot.kind.title)), \(slot.shape), \(slot.values) numbers")
                        .font(.footnote)
                        .foregroundStyle(.secondary)
                    Text("Each within ±\(slot.bound.formatted())")
                        .font(.footnote)
                        .foregroundStyle(.secondary)
                }
                .accessibilityElement(children: .combine)
            }
        } header: {
            Text("Slots")
        }
    }

    private var programs: some View {
        Section {
            ForEach(model.programs) { program in
                LabeledContent {
                    Text(program.verified.title)
                } label: {
                    Text(verbatim: program.id)
                }
            }
        } header: {
            Text("Programs")
        } footer: {
            Text("What was done with each where the bundle was made.")
        }
    }

    private var log: some View {
        Section {
            if model.log.isEmpty {
                Text("Nothing has been verified yet.")
            }
            ForEach(model.log) { entry in
                LogRow(entry: entry)
            }
        } header: {
            Text("Verification")
        }
        .accessibilityIdentifier("log")
    }
}

/// The beginning of a digest; all of it can be copied.
private struct DigestRow: View {
    let title: LocalizedStringKey
    let digest: String

    var body: some View {
        LabeledContent(title) {
            Text(verbatim: String(digest.prefix(16)))
                .font(.body.monospaced())
        }
        .contextMenu {
            Button("Copy", systemImage: "doc.on.doc") { UIPasteboard.general.string = digest }
        }
    }
}

/// One verification; unfolded, its rules in their order.
private struct LogRow: View {
    let entry: VerificationEntry

    var body: some View {
        DisclosureGroup {
            ForEach(steps) { step in
                StepRow(step: step)
            }
        } label: {
            Label {
                VStack(alignment: .leading, spacing: 2) {
                    Text(verbatim: entry.what)
                    if let error = entry.error {
                        Text(verbatim: error.code).font(.footnote.monospaced())
                        Text(verbatim: error.message)
                            .font(.footnote)
                            .foregroundStyle(.secondary)
                    }
                    Text(entry.date, format: .dateTime)
                        .font(.caption)
                        .foregroundStyle(.secondary)
                }
            } icon: {
                Image(systemName: entry.error == nil ? "checkmark.seal" : "xmark.seal")
                    .foregroundStyle(entry.error == nil ? Color.green : Color.red)
                    .accessibilityLabel(entry.error == nil ? Text("Accepted") : Text("Refused"))
            }
            .accessibilityElement(children: .combine)
        }
    }

    /// None where it was no rule of the format that failed.
    private var steps: [VerificationStep] {
        guard let error = entry.error else { return VerificationStep.all(failed: nil) }
        return (error as? FormatError).map { VerificationStep.all(failed: $0.refusal) } ?? []
    }
}

private struct StepRow: View {
    let step: VerificationStep

    var body: some View {
        Label {
            VStack(alignment: .leading) {
                Text(verbatim: step.rule)
                Text(verbatim: step.code.rawValue)
                    .font(.caption.monospaced())
                    .foregroundStyle(.secondary)
            }
        } icon: {
            Image(systemName: symbol).accessibilityLabel(result)
        }
        .font(.footnote)
        .accessibilityElement(children: .combine)
    }

    private var symbol: String {
        switch step.result {
        case .passed: "checkmark"
        case .failed: "xmark"
        case .notReached: "minus"
        }
    }

    private var result: Text {
        switch step.result {
        case .passed: Text("Passed")
        case .failed: Text("Failed")
        case .notReached: Text("Not reached")
        }
    }
}

private struct ManifestView: View {
    let manifest: String

    var body: some View {
        ScrollView([.vertical, .horizontal]) {
            Text(verbatim: manifest)
                .font(.footnote.monospaced())
                .textSelection(.enabled)
                .padding()
        }
        .navigationTitle("manifest.json")
        .navigationBarTitleDisplayMode(.inline)
    }
}
