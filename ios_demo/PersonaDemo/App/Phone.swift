// This phone, as the screens' logic sees it: its folders, and every way in which it runs a program.

import Foundation
import PersonaDemoLogic
import PersonaKit
import PersonaKitExecuTorch

extension Platform {
    static let phone = Platform(
        folder: .applicationSupportDirectory.appending(path: "Persona"),
        documents: .documentsDirectory,
        embedded: Bundle.main.url(
            forResource: "bundle", withExtension: nil, subdirectory: "Embedded"),
        engines: { bundle in bundle.manifest.programs.flatMap(engines(for:)) },
        conditions: .current
    )

    /// Programs of other devices (Vulkan, QNN) run nowhere here.
    private static func engines(for program: Program) -> [EngineFactory] {
        switch program.target {
        case "coreml":
            ComputeUnits.allCases.map { .coreML(program, units: $0, cache: cache) }
        case "executorch-xnnpack", "executorch-coreml":
            [.execuTorch(program, scratch: cache)]
        default:
            []
        }
    }

    private static let cache = URL.cachesDirectory.appending(path: "Persona")
}
