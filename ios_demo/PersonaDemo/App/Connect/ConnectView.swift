// Where somebody says which cloud to ask, or takes the bundle that came with the app.

import PersonaDemoLogic
import SwiftUI

struct ConnectView: View {
    let model: AppModel
    let pairing: Pairing?
    let failure: Failure?
    @State private var address: String
    @State private var fault: AddressFault?

    init(model: AppModel, pairing: Pairing?, failure: Failure?) {
        self.model = model
        self.pairing = pairing
        self.failure = failure
        _address = State(initialValue: pairing?.address.text ?? "")
    }

    var body: some View {
        NavigationStack {
            Form {
                if let failure {
                    Section { FailureRow(failure: failure) }
                }
                Section {
                    TextField("Address of the cloud", text: $address)
                        .keyboardType(.URL)
                        .textInputAutocapitalization(.never)
                        .autocorrectionDisabled()
                        .submitLabel(.go)
                        .onSubmit(connect)
                        .accessibilityIdentifier("address")
                    if let publisher = pairing?.publisher, address == pairing?.address.text {
                        LabeledContent("Bundles must be signed by") {
                            Text(verbatim: publisher).font(.body.monospaced())
                        }
                    }
                    if let fault {
                        FailureRow(failure: .address(fault))
                    }
                    Button("Connect", action: connect)
                        .disabled(address.isEmpty)
                        .accessibilityIdentifier("connect")
                } header: {
                    Text("Cloud")
                } footer: {
                    Text(
                        """
                        Start one with “persona serve RUN --host 0.0.0.0” on a computer in the same \
                        network, and type the address that it prints or point the camera at its \
                        QR code.
                        """
                    )
                }
                if model.canResume {
                    Section {
                        Button("Go on with what ran last") { model.start() }
                            .accessibilityIdentifier("resume")
                    }
                }
                if model.hasEmbeddedBundle {
                    Section {
                        Button("Use the bundle in the app") { model.useEmbeddedBundle() }
                            .accessibilityIdentifier("embedded")
                    } footer: {
                        Text("Runs without a network: it has a base and prototypes, but no cloud.")
                    }
                }
            }
            .navigationTitle("Persona")
        }
    }

    private func connect() {
        do {
            let typed = try Pairing(address)
            fault = nil
            model.connect(to: typed.address == pairing?.address ? pairing ?? typed : typed)
        } catch {
            fault = error
        }
    }
}

struct FailureRow: View {
    let failure: Failure

    var body: some View {
        VStack(alignment: .leading, spacing: 4) {
            Label {
                Text(failure.title)
            } icon: {
                Image(systemName: "exclamationmark.triangle.fill")
                    .foregroundStyle(.orange)
            }
            if let code = failure.code {
                Text(verbatim: code)
                    .font(.caption.monospaced())
                    .foregroundStyle(.secondary)
                    .textSelection(.enabled)
            }
        }
        .accessibilityElement(children: .combine)
    }
}
