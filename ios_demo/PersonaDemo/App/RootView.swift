// The one window: a screen to connect until there is a model, then the three tabs.

import PersonaDemoLogic
import SwiftUI

struct RootView: View {
    let model: AppModel
    @State private var pairing: Pairing?
    @State private var linkFault: AddressFault?
    @State private var showsLinkFault = false

    var body: some View {
        // A group would start its task anew with each phase.
        ZStack {
            switch model.phase {
            case .running(let session):
                SessionView(model: model, session: session)
            case .confirming(let candidate):
                PublisherView(model: model, candidate: candidate)
            case .disconnected(let failure):
                ConnectView(model: model, pairing: pairing, failure: failure)
                    .id(pairing)
            case .starting, .asking, .downloading, .checking:
                ConnectingView(model: model)
            }
        }
        .task { if pairing == nil { model.start() } }
        .onOpenURL { link in follow(link) }
        .alert(
            "This link does not lead to a cloud", isPresented: $showsLinkFault,
            presenting: linkFault
        ) { _ in
            Button("OK", role: .cancel) {}
        } message: { fault in
            Text(Failure.address(fault).title)
        }
    }

    /// A link fills in the form; it connects to nothing by itself.
    private func follow(_ link: URL) {
        do {
            pairing = try Pairing(link: link)
            model.cancel()
        } catch {
            linkFault = error
            showsLinkFault = true
        }
    }
}

private struct SessionView: View {
    let model: AppModel
    let session: Session

    var body: some View {
        TabView {
            PersonaliseView(app: model, session: session)
                .tabItem { Label("Personalise", systemImage: "wand.and.stars") }
            MeasureView(model: session.measure, personalise: session.personalise)
                .tabItem { Label("Measure", systemImage: "stopwatch") }
            InspectView(model: session.inspect)
                .tabItem { Label("Inspect", systemImage: "doc.text.magnifyingglass") }
        }
    }
}
