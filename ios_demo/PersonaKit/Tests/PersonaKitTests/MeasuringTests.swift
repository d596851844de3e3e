import Foundation
import Testing

@testable import PersonaKit

struct MeasuringTests {
    private let calm = Array(repeating: 10.0, count: 200)

    private func validity(
        _ base: [Double], _ before: ThermalState = .nominal, _ after: ThermalState = .nominal,
        lowPower: Bool = false
    ) -> Validity {
        Validity(base: base, thermalBefore: before, thermalAfter: after, lowPower: lowPower)
    }

    @Test func aCalmRunOfEnoughCallsIsValid() {
        #expect(validity(calm) == .valid)
        #expect(validity(calm, .unknown, .fair) == .valid)
    }

    @Test func aRunOnAHotDeviceIsNone() {
        let hot = InvalidReason.throttled(before: .nominal, after: .serious)
        #expect(validity(calm, .nominal, .serious) == .invalid([hot]))
    }

    @Test func everyReasonIsTold() {
        let short = validity([1], .critical, .critical, lowPower: true)
        let reasons: [InvalidReason] = [
            .throttled(before: .critical, after: .critical), .lowPowerMode,
            .tooFewIterations(1, wanted: 100),
        ]
        #expect(short == .invalid(reasons))
    }

    @Test func callsThatBecomeSlowerDuringTheRunMakeItInvalid() {
        let slowing = calm + Array(repeating: 15.0, count: 200)
        #expect(validity(slowing) == .invalid([.slowedDown(1.5)]))
    }

    @Test func loadsAreFirstEverThenColdAfterARestartAndWarmBetween() async throws {
        let place = try TemporaryFolder()
        let ledger = LoadLedger(folder: place.url, system: "1")
        #expect(try await ledger.next("a", bundle: "b") == .firstEver)
        #expect(try await ledger.next("a", bundle: "b") == .warm)
        #expect(try await ledger.next("a", bundle: "other") == .firstEver)
        let restarted = LoadLedger(folder: place.url, system: "1")
        #expect(try await restarted.next("a", bundle: "b") == .cold)
        #expect(try await restarted.next("a", bundle: "b") == .warm)
        let updated = LoadLedger(folder: place.url, system: "2")
        #expect(try await updated.next("a", bundle: "b") == .firstEver)
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
