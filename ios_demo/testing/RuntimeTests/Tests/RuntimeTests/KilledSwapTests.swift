import EngineOnRuntime
import Foundation
import PersonaKit
import Testing

struct KilledSwapTests {
    /// A device with one edit accepts another and is killed at its first, second, … change of a
    /// file, until there is none left.
    @Test func killedAtAnyStepOfASwapADeviceHasTheOldEditOrTheNewOneWhole() async throws {
        let sample = Sample.all[0]
        let place = try TemporaryFolder()
        let work = try TemporaryFolder()
        let live = try sample.live(in: place)
        let cloud = try sample.client()
        _ = await live.personalise(
            with: cloud, observation: try await sample.observation(live, user: 0)
        )
        let old = await live.state
        try FileManager.default.copyItem(at: place.device, to: place.url.appending(path: "before"))
        _ = await live.personalise(
            with: cloud, observation: try await sample.observation(live, user: 1)
        )
        let new = await live.state
        #expect(old != new)
        let edit = try place.storedEdit()

        var outcomes: [Bool] = []
        var survived = false
        while !survived {
            try? FileManager.default.removeItem(at: work.device)
            try FileManager.default.copyItem(
                at: place.url.appending(path: "before"), to: work.device
            )
            survived = try victim(sample, work.device, edit, killedAt: outcomes.count + 1)
            let state = await sample.stateAfterRestart(in: work)
            #expect(state == old || state == new, "killed at step \(outcomes.count + 1)")
            let names = try FileManager.default.contentsOfDirectory(atPath: work.device.path)
            #expect(!names.contains { $0.hasPrefix(".") }, "unfinished files stay: \(names)")
            outcomes.append(state == new)
        }
        #expect(outcomes.count > 10 && outcomes.first == false && outcomes.last == true)
        // Once it is the new one, it stays the new one.
        #expect(outcomes == outcomes.sorted { !$0 && $1 })
        print(
            "KILLED at \(outcomes.count - 1) steps, \(outcomes.filter { !$0 }.count) with the old edit"
        )
    }

    /// Whether it lived to the end.
    private func victim(_ sample: Sample, _ device: URL, _ edit: URL, killedAt step: Int) throws
        -> Bool
    {
        let process = Process()
        process.executableURL = URL(filePath: Sample.environment("PERSONA_VICTIM"))
        process.arguments = [sample.folder.appending(path: "bundle").path, device.path, edit.path]
        process.environment = ProcessInfo.processInfo.environment.merging([
            "LD_PRELOAD": Sample.environment("PERSONA_KILLER"), "PERSONA_KILL_AT": String(step),
        ]) { $1 }
        try process.run()
        process.waitUntilExit()
        if process.terminationReason == .exit { #expect(process.terminationStatus == 0) }
        return process.terminationReason == .exit
    }
}
