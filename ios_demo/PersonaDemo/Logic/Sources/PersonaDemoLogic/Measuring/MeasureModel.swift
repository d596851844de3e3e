// The Measure screen: which ways of running are compared, how a run goes, and what came out.

import Foundation
import Observation
import PersonaKit

@MainActor @Observable
public final class MeasureModel {
    /// A way to run a program, and whether it takes part.
    public struct Choice: Hashable, Sendable, Identifiable {
        public let label: String
        /// Choices of the same program have the same.
        public let program: String
        public var isOn: Bool

        public var id: String { label }
    }

    public enum State {
        case idle
        case running(Progress)
        /// Some may have failed while others were measured.
        case finished([Finding])
    }

    public struct Progress: Hashable, Sendable {
        public let label: String
        /// From 1.
        public let index: Int
        public let count: Int
        /// Of this way alone, 0…1.
        public let fraction: Double

        /// Of the whole run, 0…1.
        public var overall: Double { (Double(index - 1) + fraction) / Double(count) }
    }

    /// What came of one way of running.
    public enum Finding: Identifiable, Sendable {
        case measured(BenchmarkResult)
        case failed(label: String, Failure)

        public var id: String {
            switch self {
            case .measured(let result): result.label
            case .failed(let label, _): label
            }
        }
    }

    public enum Upload: Hashable, Sendable {
        case none
        case sending
        case sent(Int)
        case failed(Failure)
    }

    public private(set) var choices: [Choice]
    public var iterations = 200
    public var warmUp = 20
    public var coolDownSeconds = 2.0
    public private(set) var state = State.idle
    public private(set) var upload = Upload.none
    /// One for each way of running that was ever measured.
    public private(set) var histories: [LatencyHistory] = []

    /// Why results or a baseline could not be written, the last time that was tried.
    public private(set) var notKept: Failure?

    @ObservationIgnored private let live: LiveModel
    @ObservationIgnored private let cloud: CloudClient?
    @ObservationIgnored private let engines: [EngineFactory]
    @ObservationIgnored private let ledger: LoadLedger
    @ObservationIgnored private let stored: BenchmarkHistory
    @ObservationIgnored private let conditions: DeviceConditions
    @ObservationIgnored private var work: Task<Void, Never>?

    init(
        live: LiveModel, cloud: CloudClient?, engines: [EngineFactory], platform: Platform
    ) throws {
        self.live = live
        self.cloud = cloud
        self.engines = engines
        conditions = platform.conditions
        ledger = platform.loads
        stored = try BenchmarkHistory(folder: platform.folder.appending(path: "measurements"))
        choices = engines.map { engine in
            let program = "\(engine.target) \(engine.precision.rawValue)"
            return Choice(label: engine.label, program: program, isOn: true)
        }
        readHistory()
    }

    public var isRunning: Bool {
        if case .running = state { true } else { false }
    }

    public var canStart: Bool { !isRunning && choices.contains(where: \.isOn) }
    public var canUpload: Bool { cloud != nil && !results.isEmpty && upload != .sending }

    public var results: [BenchmarkResult] {
        guard case .finished(let findings) = state else { return [] }
        return findings.compactMap { finding in
            if case .measured(let result) = finding { result } else { nil }
        }
    }

    /// The programs that choices belong to, in their order.
    public var programs: [String] {
        choices.map(\.program).reduce(into: []) { programs, program in
            if !programs.contains(program) { programs.append(program) }
        }
    }

    /// The results side by side.
    public var bars: [ComparisonBar] {
        results.map { result in
            let edited = result.measurement.edited
            return ComparisonBar(
                label: result.label, p50: edited.p50, p90: edited.p90, p99: edited.p99,
                valid: result.validity == .valid, detail: result.placement.summary
            )
        }
    }

    /// Whether a choice takes part.
    public subscript(isOn choice: Choice.ID) -> Bool {
        get { choices.contains { $0.id == choice && $0.isOn } }
        set {
            guard let place = choices.firstIndex(where: { $0.id == choice }) else { return }
            choices[place].isOn = newValue
        }
    }

    public func start(editToActiveMilliseconds: Double? = nil) {
        guard canStart else { return }
        let chosen = Set(choices.filter(\.isOn).map(\.label))
        let taking = engines.filter { chosen.contains($0.label) }
        upload = .none
        state = .running(
            Progress(label: taking[0].label, index: 1, count: taking.count, fraction: 0))
        work = Task { await run(taking, editToActiveMilliseconds) }
    }

    /// Ends the run; what is measured by then stays.
    public func stop() {
        work?.cancel()
    }

    public func settle() async {
        await work?.value
    }

    private func run(_ taking: [EngineFactory], _ editToActive: Double?) async {
        let benchmark = Benchmark(
            bundle: live.bundle,
            plan: BenchmarkPlan(
                iterations: iterations, warmUp: warmUp, coolDown: .seconds(coolDownSeconds)
            ),
            ledger: ledger,
            conditions: conditions
        )
        var findings = [Finding]()
        for (place, factory) in taking.enumerated() where !Task.isCancelled {
            let label = factory.label
            let at = (index: place + 1, count: taking.count)
            show(Progress(label: label, index: at.index, count: at.count, fraction: 0))
            do {
                let result = try await benchmark.run(
                    factory, editToActiveMilliseconds: editToActive
                ) { fraction in
                    Task { @MainActor [weak self] in
                        self?.show(
                            Progress(
                                label: label, index: at.index, count: at.count, fraction: fraction
                            )
                        )
                    }
                }
                findings.append(.measured(result))
                store { try stored.append(result) }
            } catch is CancellationError {
                break
            } catch {
                findings.append(.failed(label: label, Failure(error)))
            }
        }
        state = findings.isEmpty ? .idle : .finished(findings)
    }

    /// Progress comes in any order: only forward.
    private func show(_ progress: Progress) {
        guard case .running(let shown) = state, progress.overall >= shown.overall else { return }
        state = .running(progress)
    }

    /// Later results of the same way of running are compared with this one, if it is valid.
    public func setBaseline(_ entry: LatencyHistory.Entry.ID) {
        guard let result = stored.results().first(where: { $0.id == entry }) else { return }
        store { try stored.setBaseline(result) }
    }

    private func store(_ write: () throws -> Void) {
        do {
            try write()
            notKept = nil
        } catch {
            notKept = Failure(error)
        }
        readHistory()
    }

    private func readHistory() {
        let byLabel = Dictionary(grouping: stored.results(), by: \.label)
        histories = byLabel.keys.sorted().map { label in
            let entries = byLabel[label, default: []].map { result in
                LatencyHistory.Entry(
                    id: result.id, date: result.startedAt, p50: result.measurement.edited.p50,
                    isValid: result.isValid
                )
            }
            return LatencyHistory(
                label: label, entries: entries, chosen: stored.baseline(of: label)
            )
        }
    }

    /// Sends every valid measurement to the cloud.
    public func sendToCloud() async {
        guard let cloud, canUpload else { return }
        upload = .sending
        do {
            let valid = results.filter { $0.validity == .valid }
            for result in valid {
                try await live.report(result.measurement, to: cloud)
            }
            upload = .sent(valid.count)
        } catch {
            upload = .failed(Failure(error))
        }
    }

    /// The figures of the results as one JSON array, for the share sheet and for files.
    public func report() -> Data {
        BenchmarkResult.report(results).encoded()
    }
}
