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
        #expect(model.results.allSatisfy { $0.editedMicroseconds.count >= 100 })
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

    @Test func theReportIsOneListOfTheFiguresOfAllResults() async throws {
        let model = try model([DigitLoader.factory("one"), DigitLoader.factory("two")])
        model.start()
        await model.settle()
        let parsed = try JSONSerialization.jsonObject(with: model.report())
        let figures = try #require(parsed as? [[String: Any]])
        let ratios = figures.filter { $0["metric"] as? String == "edited_over_base(ratio)" }
        let measured = model.results.map(\.measurement.ratio)
        #expect(measured.count == 2 && ratios.count == 2)
        for (figure, ratio) in zip(ratios, measured) {
            let told = try #require(figure["actualValue"] as? Double)
            #expect(abs(told - ratio) < 1e-9)
        }
    }

    @Test func whatRunsWasLoadedBeforeSoMeasuringItIsNotItsFirstLoad() async throws {
        let engine = DigitLoader.factory("one")
        let platform = scratch.platform([engine])
        let app = AppModel(platform: platform)
        app.trust(.init(bundle: DigitModel.bundle(folder: scratch.url), cloud: nil))
        await app.settle()
        let measure = try #require(app.session?.measure)
        let bundle = try #require(app.session?.bundle.digest)
        _ = try await platform.loads.load(engine, of: DigitModel.bundle(folder: scratch.url))
        let before = try #require(await platform.loads.times(of: "one", bundle: bundle))
        measure.coolDownSeconds = 0
        measure.start()
        await measure.settle()
        let loads = try #require(measure.results.first?.loads)
        #expect(before.firstEver != nil && loads.firstEver == before.firstEver)
        #expect(loads.cold == nil)
    }

    /// As if it had been measured earlier, at the start of 1970 and some seconds.
    private func keep(_ validity: Validity, second: Double) throws -> String {
        let result = BenchmarkResult(
            id: UUID(), label: "one", startedAt: Date(timeIntervalSince1970: second),
            measurement: LatencyMeasurement(
                model: "digits", bundle: "b", target: "test", precision: "fp32", delegates: [],
                host: MeasuredHost(
                    system: "iOS 17", machine: "iPhone", cores: 6, threads: 1, thermal: "nominal"
                ), base: Latency(microseconds: [1], warmup: 0),
                edited: Latency(microseconds: [1], warmup: 0), loadMilliseconds: 1,
                editToActiveMilliseconds: nil
            ), loads: LoadTimes(firstEver: nil, cold: nil, warm: 1),
            placement: Placement(.unknown("a test")), baseMicroseconds: [1],
            editedMicroseconds: [1], memoryBytes: nil, thermalBefore: .nominal,
            thermalAfter: .nominal, validity: validity
        )
        let folder = scratch.url.appending(path: "measurements")
        try BenchmarkHistory(folder: folder).append(result)
        return result.id.uuidString
    }

    @Test func aChosenBaselineStaysAfterARestartAndAnInvalidOneIsNotTaken() throws {
        let oldest = try keep(.valid, second: 1)
        let chosen = try keep(.valid, second: 2)
        let invalid = try keep(.invalid([.lowPowerMode]), second: 3)
        func baseline() throws -> String? {
            try model([DigitLoader.factory("one")]).histories.first?.baseline?.id
        }
        #expect(try baseline() == oldest)
        try model([DigitLoader.factory("one")]).setBaseline(chosen)
        #expect(try baseline() == chosen)
        try model([DigitLoader.factory("one")]).setBaseline(invalid)
        #expect(try baseline() == chosen)
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
