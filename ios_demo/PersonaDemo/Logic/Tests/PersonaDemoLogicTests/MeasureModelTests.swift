import Foundation
import Testing

@testable import PersonaDemoLogic
@testable import PersonaKit

@MainActor @Suite struct MeasureModelTests {
    let scratch = Scratch()

    private func model(_ engines: [EngineFactory]) throws -> MeasureModel {
        let bundle = DigitModel.bundle(folder: scratch.url)
        let live = try LiveModel(
            bundle: bundle, engine: DigitEngine(bundle),
            folder: scratch.url.appending(path: "device")
        )
        let model = try MeasureModel(
            live: live, cloud: nil, engines: engines, platform: scratch.platform(engines)
        )
        model.iterations = 100
        model.coolDownSeconds = 0
        return model
    }

    @Test func everyChosenWayIsMeasuredAndKept() async throws {
        let model = try model([DigitLoader.factory("one"), DigitLoader.factory("two")])
        model.start()
        #expect(model.isRunning)
        await model.settle()
        #expect(model.results.map(\.label) == ["one", "two"])
        #expect(model.results.allSatisfy { $0.editedMicroseconds.count == 100 })
        #expect(model.histories.map(\.label) == ["one", "two"])
        #expect(model.bars.map(\.label) == ["one", "two"])
    }

    @Test func whatIsNotChosenIsNotRun() async throws {
        let model = try model([DigitLoader.factory("one"), DigitLoader.factory("two")])
        model[isOn: "one"] = false
        #expect(!model[isOn: "one"])
        model.start()
        await model.settle()
        #expect(model.results.map(\.label) == ["two"])
        model[isOn: "two"] = false
        #expect(!model.canStart)
    }

    @Test func aProgramThatMissesItsGoldenOutputsIsAFailureBesideTheOthers() async throws {
        let model = try model([
            DigitLoader.factory("broken", offset: 1), DigitLoader.factory("good"),
        ])
        model.start()
        await model.settle()
        guard case .finished(let findings) = model.state, findings.count == 2,
            case .failed("broken", .told(let code, _)) = findings[0]
        else { return #expect(Bool(false)) }
        #expect(code == "bundle.golden_mismatch")
        #expect(model.results.map(\.label) == ["good"])
    }

    @Test func stoppedBeforeAnythingIsMeasuredNothingIsClaimed() async throws {
        let model = try model([DigitLoader.factory("one")])
        model.coolDownSeconds = 30
        model.start()
        model.stop()
        await model.settle()
        #expect(!model.isRunning)
        #expect(model.results.isEmpty)
        #expect(model.histories.isEmpty)
    }

    @Test func theReportIsOneJSONArrayWithTheRecordThatTheCloudTakes() async throws {
        let model = try model([DigitLoader.factory("one")])
        model.start()
        await model.settle()
        let parsed = try JSONSerialization.jsonObject(with: model.report())
        let documents = try #require(parsed as? [[String: Any]])
        let record = try #require(documents.first?["measurement"] as? [String: Any])
        #expect(record["format"] as? String == "persona.measurement/1")
        #expect((record["edited"] as? [String: Any])?["iterations"] as? Int == 100)
    }

    @Test func aChosenBaselineStaysAfterARestart() async throws {
        let first = try model([DigitLoader.factory("one")])
        first.start()
        await first.settle()
        first.start()
        await first.settle()
        let entry = try #require(first.histories.first?.entries.first)
        first.setBaseline(entry.id)
        #expect(try model([DigitLoader.factory("one")]).histories.first?.baseline?.id == entry.id)
    }
}

@Suite struct LatencyBinsTests {
    @Test func everyCallIsInOneBinAndTheMarksAreTheQuantiles() {
        let base = (1...100).map(Double.init)
        let edited = base.map { $0 + 10 }
        let bins = LatencyBins(base: base, edited: edited)
        #expect(bins.bins.map(\.base).reduce(0, +) == 100)
        #expect(bins.bins.map(\.edited).reduce(0, +) == 100)
        #expect(bins.marks.map(\.name) == ["p50", "p90", "p99"])
        #expect(abs(bins.marks[0].microseconds - 60.5) < 1e-9)
    }

    @Test func oneHiccupDoesNotFlattenTheRest() {
        let base = [Double](repeating: 10, count: 999) + [100_000]
        let bins = LatencyBins(base: base, edited: base)
        #expect(bins.bins.last!.upper < 20)
    }

    @Test func withoutTimesThereIsNothing() {
        #expect(LatencyBins(base: [], edited: []).bins.isEmpty)
        #expect(LatencyBins(base: [1], edited: []).marks.isEmpty)
    }

    @Test func theBaselineIsTheChosenValidOneElseTheOldestValid() {
        let entries = [("a", 1.0, false), ("b", 2, true), ("c", 3, true)].map { id, day, isValid in
            LatencyHistory.Entry(
                id: id, date: Date(timeIntervalSince1970: day * 86_400), p50: 1, isValid: isValid
            )
        }
        #expect(LatencyHistory(label: "x", entries: entries, chosen: nil).baseline?.id == "b")
        #expect(LatencyHistory(label: "x", entries: entries, chosen: "c").baseline?.id == "c")
        #expect(LatencyHistory(label: "x", entries: entries, chosen: "a").baseline?.id == "b")
        #expect(
            LatencyHistory(label: "x", entries: entries, chosen: nil).entries.map(\.id) == [
                "c", "b", "a",
            ])
    }
}
