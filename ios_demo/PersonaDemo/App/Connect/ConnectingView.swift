// What the app is waiting for until it has a model.

import PersonaDemoLogic
import SwiftUI

struct ConnectingView: View {
    let model: AppModel

    var body: some View {
        VStack(spacing: 16) {
            switch model.phase {
            case .asking(let cloud):
                ProgressView("Asking \(cloud.text)")
            case .downloading(let cloud, let fraction):
                ProgressView("Fetching the bundle from \(cloud.text)", value: fraction)
            case .checking(let name):
                ProgressView("Comparing golden outputs of \(name)")
            case .starting, .disconnected, .confirming, .running:
                ProgressView()
            }
            Button("Cancel", role: .cancel) { model.cancel() }
        }
        .multilineTextAlignment(.center)
        .padding()
    }
}
