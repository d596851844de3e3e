import Foundation
import Testing

@testable import PersonaDemoLogic
@testable import PersonaKit

@MainActor @Suite struct PersonaliseModelTests {
    let scratch = Scratch()

    private func model(cloud: CloudClient? = nil) throws -> PersonaliseModel {
        let bundle = DigitModel.bundle(folder: scratch.url)
        let live = try LiveModel(
            bundle: bundle, engine: DigitEngine(bundle),
            folder: scratch.url.appending(path: "device")
        )
        return PersonaliseModel(live: live, cloud: cloud)
    }

    private let stroke = DigitDrawing(strokes: [[.init(x: 0.5, y: 0), .init(x: 0.5, y: 1)]])

    @Test func aDigitClassifierIsDrawnFor() throws {
        #expect(try model().form == .digit(DigitFrame(width: 8, height: 8)))
    }

    @Test func theWindowMustBeLongEnoughBeforeTheCloudIsAsked() async throws {
        let model = try model()
        for count in 1...3 {
            #expect(!model.canAsk)
            await model.add(stroke)
            #expect(model.count == count)
        }
        #expect(model.canAsk)
        #expect(model.drift == .ask(.neverAsked))
    }

    @Test func theWindowKeepsTheNewestSamples() async throws {
        let model = try model()
        for _ in 0..<7 { await model.add(stroke) }
        guard case .digits(let digits) = model.samples else { return #expect(Bool(false)) }
        #expect(digits.map(\.id) == [2, 3, 4, 5, 6])
    }

    @Test func anEmptyDrawingIsNoSample() async throws {
        let model = try model()
        await model.add(DigitDrawing())
        #expect(model.count == 0)
    }

    @Test func withoutACloudAPrototypeRunsAndSamplesAreAnsweredAnew() async throws {
        let model = try model()
        for _ in 0..<3 { await model.add(stroke, label: 7) }
        #expect(model.tally == tally(before: 0, after: 0))
        await model.ask()
        #expect(model.running == .prototype(0))
        #expect(model.tally == tally(before: 0, after: 3))
        #expect(model.reach == .noCloud)
    }

    @Test func takenBackTheBaseAnswersAgain() async throws {
        let model = try model()
        for _ in 0..<3 { await model.add(stroke, label: 7) }
        await model.ask()
        await model.rollBack()
        #expect(model.running == .base)
        #expect(model.tally == tally(before: 0, after: 0))
    }

    @Test func aLabelThatSomebodySaysIsCounted() async throws {
        let model = try model()
        await model.add(stroke)
        #expect(model.tally == nil)
        model[label: 0] = 0
        #expect(model[label: 0] == 0)
        #expect(model.tally?.rightBefore == 1)
        model[label: 99] = 3
        #expect(model[label: 99] == nil)
    }

    @Test func anUnreachableCloudIsToldAndThePrototypeRuns() async throws {
        // Nothing listens on the discard port.
        let model = try model(cloud: CloudClient(url: "http://127.0.0.1:9"))
        #expect(model.reach == .unknown)
        for _ in 0..<3 { await model.add(stroke) }
        await model.ask()
        guard case .offline(let since, _) = model.reach else { return #expect(Bool(false)) }
        #expect(abs(since.timeIntervalSinceNow) < 60)
        guard case .kept(.told(let code, _)) = model.outcome else { return #expect(Bool(false)) }
        #expect(code == "cloud.offline")
        #expect(model.running == .prototype(0))
        #expect(model.activity == .idle)
    }

    @Test func clearedSamplesAreGone() async throws {
        let model = try model()
        await model.fill(4)
        #expect(model.count == 4)
        await model.clearSamples()
        #expect(model.count == 0)
        #expect(model.drift == nil)
        #expect(!model.canAsk)
    }

    private func tally(before: Int, after: Int) -> Tally {
        let both = { (label: Int) in
            ClassComparison(
                before: [Float](repeating: 0, count: 10),
                after: (0..<10).map { $0 == label ? 1 : 0 }
            )
        }
        var samples = [DigitSample]()
        for index in 0..<3 {
            let frame = DigitFrame(width: 8, height: 8)
            var sample = DigitSample(id: index, pixels: [], frame: frame, label: 7)
            sample.comparison = both(index < after ? 7 : 0)
            samples.append(sample)
        }
        return Tally(samples)
    }
}

@Suite struct AutomaticModeTests {
    private let kept = RequestOutcome.kept(.told(code: "cloud.offline", message: ""))
    private let now = Date(timeIntervalSince1970: 1_000_000)

    @Test func itAsksOnlyWhenOnAndTheGateSaysSo() {
        var mode = AutomaticMode()
        #expect(!mode.asks(.ask(.neverAsked), busy: false, at: now))
        mode.isOn = true
        #expect(mode.asks(.ask(.drifted(1.2)), busy: false, at: now))
        #expect(!mode.asks(.ask(.neverAsked), busy: true, at: now))
        #expect(!mode.asks(.rest(drift: 0.4), busy: false, at: now))
    }

    @Test func afterFailuresItWaitsTwiceAsLongEachTimeUntilAnEditComes() {
        var mode = AutomaticMode()
        mode.isOn = true
        for rest in [5.0, 10, 20, 40, 80, 160, 300, 300] {
            mode.learn(kept, at: now)
            #expect(
                !mode.asks(.ask(.neverAsked), busy: false, at: now.addingTimeInterval(rest - 1)))
            #expect(mode.asks(.ask(.neverAsked), busy: false, at: now.addingTimeInterval(rest)))
        }
        mode.learn(
            .newEdit(bytes: 1, editToActiveMilliseconds: 1, roundTripMilliseconds: 1), at: now
        )
        #expect(mode.asks(.ask(.expiring), busy: false, at: now))
        mode.learn(kept, at: now)
        #expect(mode.asks(.ask(.expiring), busy: false, at: now.addingTimeInterval(5)))
    }
}
