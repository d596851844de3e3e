// A device that accepts one edit and may be killed while it does: see `KilledSwapTests`.
//
//     SwapVictim BUNDLE DEVICE_FOLDER EDIT

import EngineOnRuntime
import Foundation
import PersonaKit

let arguments = CommandLine.arguments.dropFirst().map { URL(filePath: $0) }
let (folder, edit) = (arguments[1], arguments[2])
let bundle = try ModelBundle.open(at: arguments[0], trusting: nil)
let program = bundle.manifest.program(target: "executorch-xnnpack")!
let live = try LiveModel(
    bundle: bundle,
    engine: try ExecuTorchEngine(bundle: bundle, program: program, scratch: folder),
    folder: folder
)
let signed = try SignedEdit(storedAt: edit)
setenv("PERSONA_ARMED", "1", 1)
_ = try await live.accept(signed)
