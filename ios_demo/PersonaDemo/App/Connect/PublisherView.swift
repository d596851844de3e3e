// Asks whether a bundle's publisher is who somebody thinks.

import PersonaDemoLogic
import SwiftUI

struct PublisherView: View {
    let model: AppModel
    let candidate: Candidate

    var body: some View {
        NavigationStack {
            Form {
                Section {
                    LabeledContent("Model", value: candidate.bundle.manifest.model)
                    if let source = candidate.source {
                        LabeledContent("From", value: source)
                    }
                    LabeledContent("Signed by") {
                        Text(verbatim: candidate.publisher)
                            .font(.body.monospaced())
                            .textSelection(.enabled)
                    }
                } footer: {
                    Text(
                        """
                        The bundle is whole and its signature is good, but this app does not know \
                        the key yet. Compare it with what “persona bundle verify” says on the \
                        computer that made it. From then on, bundles of other keys are refused, \
                        except where this one’s key documents name them.
                        """
                    )
                }
                Section {
                    Button("Trust this publisher") { model.trust(candidate) }
                        .accessibilityIdentifier("trust")
                    Button("Do not trust", role: .destructive) { model.cancel() }
                }
            }
            .navigationTitle("Who made this?")
        }
    }
}
