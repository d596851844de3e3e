// A bundle that runs, and the logic of the three screens over it.

import Foundation
import PersonaKit

@MainActor
public final class Session {
    public let bundle: ModelBundle
    public let cloud: CloudAddress?
    /// How the live model is run; one of the ways that Measure compares.
    public let engine: String
    public let personalise: PersonaliseModel
    public let measure: MeasureModel
    public let inspect: InspectModel

    private init(
        bundle: ModelBundle, cloud: CloudAddress?, client: CloudClient?,
        running: (live: LiveModel, engine: EngineFactory), engines: [EngineFactory],
        platform: Platform
    ) throws {
        let live = running.live
        self.bundle = bundle
        self.cloud = cloud
        engine = running.engine.label
        personalise = PersonaliseModel(live: live, cloud: client)
        measure = try MeasureModel(live: live, cloud: client, engines: engines, platform: platform)
        inspect = InspectModel(live: live)
    }

    /// Takes the first engine that gives the golden outputs here, and goes on with the stored edit.
    ///
    /// pinned: the publisher's key that somebody trusted; the first key document is by it.
    static func open(
        _ bundle: ModelBundle, cloud: CloudAddress?, pinned: KeyRing, platform: Platform
    ) async throws -> Session {
        let engines = platform.engines(bundle)
        let session = try Session(
            bundle: bundle, cloud: cloud,
            client: try cloud.map { address in try CloudClient(url: address.url.absoluteString) },
            running: try await start(bundle, engines, pinned, platform), engines: engines,
            platform: platform
        )
        await session.personalise.refresh()
        await session.inspect.refresh()
        return session
    }

    private nonisolated static func start(
        _ bundle: ModelBundle, _ engines: [EngineFactory], _ pinned: KeyRing,
        _ platform: Platform
    ) async throws -> (live: LiveModel, engine: EngineFactory) {
        let folder = platform.deviceFolder(of: bundle.manifest.model)
        var first: (any Error)?
        for engine in engines {
            do {
                let loaded = try await platform.loads.load(engine, of: bundle)
                let live = try LiveModel(
                    bundle: bundle, engine: loaded, folder: folder, pinned: pinned
                )
                return (live, engine)
            } catch {
                first = first ?? error
            }
        }
        throw first ?? Failure.noProgram(targets: bundle.manifest.programs.map(\.target))
    }
}
