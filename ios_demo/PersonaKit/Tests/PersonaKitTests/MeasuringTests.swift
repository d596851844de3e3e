import Foundation
import Testing

@testable import PersonaKit

struct MeasuringTests {
    private let calm = Array(repeating: 10.0, count: 200)

    private func reasons(
        _ base: [Double], _ before: ThermalState = .nominal, _ after: ThermalState = .nominal,
        milliseconds: Double = 60_000, lowPower: Bool = false
    ) -> [InvalidReason] {
        Validity(
            base: base, milliseconds: milliseconds, thermalBefore: before, thermalAfter: after,
            lowPower: lowPower
        ).reasons
    }

    @Test func aCalmRunOfEnoughCallsIsValid() {
        #expect(reasons(Array(calm.prefix(50)), .unknown, milliseconds: 1_000) == [])
    }

    @Test func aRunDoesNotCountAndSaysWhy() {
        #expect(reasons(calm, .fair) == [.hotBefore(.fair)])
        #expect(reasons(calm, .unknown, .fair) == [.hotAfter(.fair)])
        #expect(reasons(calm, .nominal, .critical) == [.hotAfter(.critical)])
        #expect(reasons(calm, lowPower: true) == [.lowPowerMode])
        #expect(reasons(Array(calm.prefix(49))) == [.tooFew(49)])
        #expect(reasons(calm, milliseconds: 999) == [.tooShort(milliseconds: 999)])
        let all = reasons([1], .serious, .serious, milliseconds: 1, lowPower: true)
        #expect(
            all.map(\.code) == [
                "run.hot_before", "run.hot_after", "run.low_power", "run.too_few", "run.too_short",
            ]
        )
    }

    @Test func aLastQuarterSlowerThanTheFirstMakesTheRunInvalid() {
        let last = { Array(repeating: 10.0, count: 150) + Array(repeating: $0, count: 50) }
        #expect(reasons(last(11.5)) == [])
        #expect(reasons(last(12)) == [.slowedDown(1.2)])
        #expect(reasons(last(12)).map(\.code) == ["run.slowed_down"])
        #expect(reasons([1, 1, 9]).map(\.code) == ["run.too_few"])
    }

    @Test func loadsAreFirstEverThenColdAfterARestartAndWarmBetween() async throws {
        let place = try TemporaryFolder()
        func times(
            _ ledger: LoadLedger, _ loads: [Double], bundle: String = "b"
        ) async -> LoadTimes? {
            for load in loads { await ledger.remember(load, of: "a", bundle: bundle) }
            return await ledger.times(of: "a", bundle: bundle)
        }
        let ledger = LoadLedger(folder: place.url, system: "1 of 2")
        #expect(await times(ledger, [90]) == nil)
        #expect(
            await times(ledger, [7]) == LoadTimes(firstEver: 90, cold: nil, warm: 7))
        #expect(
            await times(ledger, [80.5, 6], bundle: "other")
                == LoadTimes(firstEver: 80.5, cold: nil, warm: 6))
        let restarted = LoadLedger(folder: place.url, system: "1 of 2")
        #expect(
            await times(restarted, [30, 8, 9]) == LoadTimes(firstEver: 90, cold: 30, warm: 9))
        let updated = LoadLedger(folder: place.url, system: "2")
        #expect(
            await times(updated, [70, 5]) == LoadTimes(firstEver: 70, cold: nil, warm: 5))
    }

    /// Of ten calls of 1 to 9 and 100 ms, the edited ones twice as slow.
    private func result(loads: LoadTimes, editToActive: Double?, memory: Int?) -> BenchmarkResult {
        let base = [1, 2, 3, 4, 5, 6, 7, 8, 9, 100].map { $0 * 1e3 }
        let edited = base.map { $0 * 2 }
        return BenchmarkResult(
            id: UUID(), label: "l", startedAt: Date(timeIntervalSince1970: 0),
            measurement: LatencyMeasurement(
                model: "m", bundle: "b", target: "coreml/all", precision: "fp16",
                delegates: ["cpu"],
                host: MeasuredHost(
                    system: "iOS 17", machine: "iPhone", cores: 6, threads: 1, thermal: "fair"
                ), base: Latency(microseconds: base, warmup: 5),
                edited: Latency(microseconds: edited, warmup: 5), loadMilliseconds: loads.warm,
                editToActiveMilliseconds: editToActive
            ), loads: loads, placement: Placement(.unknown("a test")), baseMicroseconds: base,
            editedMicroseconds: edited, memoryBytes: memory, thermalBefore: .nominal,
            thermalAfter: .fair, validity: .invalid([.hotAfter(.fair), .tooFew(10)])
        )
    }

    private func figures(_ result: BenchmarkResult) throws -> [[String: Any]] {
        let data = BenchmarkResult.report([result]).encoded()
        return try #require(try JSONSerialization.jsonObject(with: data) as? [[String: Any]])
    }

    @Test func theReportIsAListWithTheNamesAndUnitsOfTheAndroidDemo() throws {
        let loads = LoadTimes(firstEver: 90, cold: 30, warm: 7)
        let figures = try figures(result(loads: loads, editToActive: 4, memory: 3 << 20))
        let values = Dictionary(
            uniqueKeysWithValues: figures.map {
                ($0["metric"] as? String ?? "", $0["actualValue"] as? Double ?? .nan)
            }
        )
        let latencies = ["base", "edited"].flatMap { name in
            ["avg", "trimmean", "std", "min", "p50", "p90", "p95", "p99", "max"].map {
                "\(name).\($0)_inference_latency(ms)"
            }
        }
        #expect(
            Set(values.keys)
                == Set(
                    latencies + [
                        "edited_over_base(ratio)", "first_ever_load_time(ms)",
                        "cold_load_time(ms)", "load_time(ms)", "edit_to_active(ms)", "pss(mb)",
                    ])
        )
        let expected = [
            "base.min_inference_latency(ms)": 1, "edited.max_inference_latency(ms)": 200,
            "base.p50_inference_latency(ms)": 5.5, "base.trimmean_inference_latency(ms)": 5.5,
            "edited_over_base(ratio)": 2,
            "first_ever_load_time(ms)": 90, "cold_load_time(ms)": 30, "load_time(ms)": 7,
            "edit_to_active(ms)": 4, "pss(mb)": 3,
        ]
        for (name, value) in expected { #expect(abs(values[name]! - value) < 1e-9, "\(name)") }
    }

    @Test func everyFigureCarriesTheSameConditionsAndCodesAndWhatWasNotMeasuredIsLeftOut() throws {
        let loads = LoadTimes(firstEver: nil, cold: nil, warm: 7)
        let figures = try figures(result(loads: loads, editToActive: nil, memory: nil))
        #expect(figures.count == 20)
        for figure in figures {
            #expect(
                Set(figure.keys) == [
                    "benchmarkModel", "metric", "actualValue", "targetValue", "deviceInfo", "extra",
                ]
            )
            let model = figure["benchmarkModel"] as? [String: String]
            #expect(model == ["name": "m", "backend": "coreml/all", "quantization": "fp16"])
            let device = try #require(figure["deviceInfo"] as? [String: Any])
            #expect(Set(device.keys) == ["device", "os", "arch", "cores"])
            let extra = try #require(figure["extra"] as? [String: Any])
            #expect(
                Set(extra.keys) == [
                    "measured_at", "bundle", "delegates", "iterations", "warm_up", "threads",
                    "thermal_before", "thermal_after", "valid", "invalid_because",
                    "edit_to_active_ms",
                ]
            )
            #expect(extra["invalid_because"] as? [String] == ["run.hot_after", "run.too_few"])
            #expect(extra["valid"] as? Bool == false)
            #expect(extra["iterations"] as? Int == 10)
        }
    }

    @Test func anInvalidResultIsKeptButBecomesNoBaseline() throws {
        let place = try TemporaryFolder()
        let history = try BenchmarkHistory(folder: place.url)
        let loads = LoadTimes(firstEver: nil, cold: nil, warm: 7)
        try history.append(result(loads: loads, editToActive: nil, memory: nil))
        let kept = try #require(history.results().first)
        #expect(!kept.isValid)
        try history.setBaseline(kept)
        #expect(history.baseline(of: "l") == nil)
    }

    @Test func theRecordHasTheFieldsOfTheContractAndIsReadBack() throws {
        let latency = Latency(microseconds: [1, 2, 3, 4], warmup: 5)
        let record = LatencyMeasurement(
            model: "m", bundle: "b", target: "coreml/all", precision: "fp16",
            delegates: ["neural-engine", "cpu"],
            host: MeasuredHost(
                system: "iOS 17", machine: "iPhone", cores: 6, threads: 1, thermal: "nominal"
            ), base: latency, edited: latency, loadMilliseconds: 12.5, editToActiveMilliseconds: nil
        )
        guard case .object(let members) = record.document() else { return }
        #expect(
            members.map(\.key.text) == [
                "format", "model", "bundle", "target", "precision", "delegates", "host", "base",
                "edited", "ratio", "load_ms", "edit_to_active_ms",
            ]
        )
        #expect(record.ratio == 1)
        #expect(LatencyMeasurement(document: record.document()) == record)
        let unknown = JSONValue.object(members + [JSONMember("more", .null)])
        #expect(LatencyMeasurement(document: unknown) == nil)
    }

    @Test func aModelOnTheCPUIsNeverSummarisedAsTheNeuralEngines() {
        let placement = Placement(
            .computePlan,
            processors: [
                ProcessorShare(processor: .neuralEngine, operators: 2, cost: 0.1),
                ProcessorShare(processor: .cpu, operators: 9, cost: 0.9),
            ]
        )
        #expect(placement.mainProcessor == .cpu)
        #expect(placement.summary == "cpu 9 of 11, neural-engine 2 of 11")
        #expect(placement.delegates == ["cpu", "neural-engine"])
    }
}
