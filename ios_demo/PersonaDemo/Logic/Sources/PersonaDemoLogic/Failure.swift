// Why something did not work, as the screens tell it.

import Foundation
import PersonaKit

public enum Failure: Error, Hashable {
    case address(AddressFault)
    /// The cloud has no model.
    case noModel
    /// The bundle has programs for other devices only.
    case noProgram(targets: [String])
    /// Neither a cloud nor a bundle in the app.
    case noBundle
    /// What PersonaKit says; `code` is stable, `message` is for people.
    case told(code: String?, message: String)

    public init(_ error: any Error) {
        self =
            switch error {
            case let failure as Failure: failure
            case let fault as AddressFault: .address(fault)
            case let fault as any CodedError: .told(code: fault.code, message: fault.message)
            default: .told(code: nil, message: error.localizedDescription)
            }
    }
}
