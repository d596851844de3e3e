/// Latency of base against edited, call by call in turn, in one run, with the loads around it.
///
/// Follows what the field does: a pause to cool down, warm-up calls, then single timings whose
/// quantiles are told, with the thermal state and the processor that really ran.

import Foundation

public struct BenchmarkPlan: Sendable, Equatable {
    /// Timed calls of each of the two, at least: a run takes as many more as it needs to count.
    public let iterations: Int
    public let warmUp: Int
    public let coolDown: Duration

    public init(iterations: Int = 200, warmUp: Int = 20, coolDown: Duration = .seconds(2)) {
        self.iterations = iterations
        self.warmUp = warmUp
        self.coolDown = coolDown
    }
}

public struct BenchmarkResult: Sendable, Identifiable {
    public let id: UUID
    public let label: String
    public let startedAt: Date
    public let measurement: LatencyMeasurement
    public let loads: LoadTimes
    public let placement: Placement
    /// Single calls, in their order.
    public let baseMicroseconds: [Double]
    public let editedMicroseconds: [Double]
    public let memoryBytes: Int?
    public let thermalBefore: ThermalState
    public let thermalAfter: ThermalState
    public let validity: Validity
}

public struct Benchmark: Sendable {
    public let bundle: ModelBundle
    public let plan: BenchmarkPlan
    private let ledger: LoadLedger
    private let conditions: DeviceConditions

    public init(
        bundle: ModelBundle, plan: BenchmarkPlan, ledger: LoadLedger, conditions: DeviceConditions
    ) {
        self.bundle = bundle
        self.plan = plan
        self.ledger = ledger
        self.conditions = conditions
    }

    /// Load a program twice, check its golden vectors, and time the bundle's example edit against
    /// the base on the first golden input.
    ///
    /// `editToActiveMilliseconds`: of the edit that runs, where one was accepted. `progress`: 0 to 1.
    public func run(
        _ factory: EngineFactory, editToActiveMilliseconds: Double? = nil,
        progress: @Sendable (Double) -> Void = { _ in }
    ) async throws -> BenchmarkResult {
        try await Task.sleep(for: plan.coolDown)
        let thermalBefore = conditions.thermal()
        let startedAt = Date()
        _ = try await ledger.load(factory, of: bundle)
        let engine = try await ledger.load(factory, of: bundle)
        guard let loads = await ledger.times(of: factory.key, bundle: bundle.digest) else {
            preconditionFailure("two loads leave a warm one")
        }
        try GoldenCheck.run(bundle: bundle, engine: engine)
        let (base, edited, milliseconds) = try interleaved(engine, progress)
        let thermalAfter = conditions.thermal()
        let measurement = LatencyMeasurement(
            model: bundle.manifest.model, bundle: bundle.digest, target: factory.target,
            precision: factory.precision.rawValue, delegates: engine.placement.delegates,
            host: DeviceConditions.host(thermal: thermalAfter),
            base: Latency(microseconds: base, warmup: plan.warmUp),
            edited: Latency(microseconds: edited, warmup: plan.warmUp),
            loadMilliseconds: loads.warm,
            editToActiveMilliseconds: editToActiveMilliseconds
        )
        return BenchmarkResult(
            id: UUID(), label: factory.label, startedAt: startedAt, measurement: measurement,
            loads: loads, placement: engine.placement, baseMicroseconds: base,
            editedMicroseconds: edited, memoryBytes: conditions.memoryBytes(),
            thermalBefore: thermalBefore, thermalAfter: thermalAfter,
            validity: Validity(
                base: base, milliseconds: milliseconds, thermalBefore: thermalBefore,
                thermalAfter: thermalAfter, lowPower: conditions.lowPower()
            )
        )
    }

    /// Microseconds of each call, the two in turn, so that a noisy moment hits both; and
    /// milliseconds from the first counted call to the last. The example edit is bound, as the
    /// golden check leaves it.
    private func interleaved(
        _ engine: any InferenceEngine, _ progress: @Sendable (Double) -> Void
    ) throws -> (base: [Double], edited: [Double], milliseconds: Double) {
        let inputs = bundle.golden.inputs[0]
        let clock = ContinuousClock()
        for _ in 0..<plan.warmUp {
            _ = try engine.predictBase(inputs)
            _ = try engine.predict(inputs)
            try Task.checkCancellation()
        }
        var base: [Double] = []
        var edited: [Double] = []
        let begin = clock.now
        var milliseconds = 0.0
        while base.count < plan.iterations || milliseconds < Validity.shortestMilliseconds {
            let start = clock.now
            _ = try engine.predictBase(inputs)
            let middle = clock.now
            _ = try engine.predict(inputs)
            let end = clock.now
            base.append(start.duration(to: middle).milliseconds * 1e3)
            edited.append(middle.duration(to: end).milliseconds * 1e3)
            milliseconds = begin.duration(to: end).milliseconds
            if base.count % max(plan.iterations / 50, 1) == 0 {
                try Task.checkCancellation()
                progress(
                    min(
                        Double(base.count) / Double(plan.iterations),
                        milliseconds / Validity.shortestMilliseconds, 1
                    )
                )
            }
        }
        progress(1)
        return (base, edited, milliseconds)
    }
}
