// What the screens' logic takes from the phone that it runs on.

import Foundation
import PersonaKit

public struct Platform: Sendable {
    /// For bundles, edits, history and settings; private to the app.
    public let folder: URL
    /// For files that people share.
    public let documents: URL
    /// The bundle that came with the app, where one did.
    public let embedded: URL?
    /// Every way in which this phone can run the bundle's programs, the best one first.
    public let engines: @Sendable (ModelBundle) -> [EngineFactory]
    public let conditions: DeviceConditions
    /// Every load of a program goes through it.
    let loads: LoadLedger

    public init(
        folder: URL,
        documents: URL,
        embedded: URL?,
        engines: @escaping @Sendable (ModelBundle) -> [EngineFactory],
        conditions: DeviceConditions
    ) {
        self.folder = folder
        self.documents = documents
        self.embedded = embedded
        self.engines = engines
        self.conditions = conditions
        loads = LoadLedger(folder: folder.appending(path: "loads"))
    }

    /// Where a model's device keeps its edits and the keys that it has learned.
    func deviceFolder(of model: String) -> URL { folder.appending(path: "devices/\(model)") }
}
