// Failures in the person's language. What PersonaKit says about one comes as it is.

import PersonaDemoLogic
import PersonaKit
import SwiftUI

extension Failure {
    var title: LocalizedStringResource {
        switch self {
        case .address(.notAnAddress(let text)):
            """
            “\(text)” is not the address of a cloud. Type what “persona serve” prints, such as \
            192.168.1.5:8080 or https://cloud.example.org.
            """
        case .address(.needsEncryption(let host)):
            """
            \(host) is not in your own network, so it needs https. Without encryption only local \
            addresses are asked.
            """
        case .noModel:
            "The cloud has no model. Serve a run that has been exported."
        case .noProgram(let targets):
            """
            The bundle has no program for this device, only for \(targets.formatted()). Export it \
            again with “--target coreml” or “--target executorch-xnnpack”.
            """
        case .noBundle:
            "There is no bundle in the app. Copy one to App/Embedded/bundle and build again."
        case .told(_, let message):
            "\(message)"
        }
    }

    var code: String? {
        if case .told(let code, _) = self { code } else { nil }
    }

    /// For the terminal.
    var line: String {
        [code, String(localized: title)].compactMap(\.self).joined(separator: ": ")
    }
}
