// A benchmark without anybody at the screen: fetch or find the bundle, measure, write, send.
//
// It goes the same way as the screens do, so what it measures is what they show.

import Foundation
import PersonaKit

@MainActor
public struct HeadlessBenchmark {
    public let request: BenchmarkRequest
    public let platform: Platform

    public init(_ request: BenchmarkRequest, platform: Platform) {
        self.request = request
        self.platform = platform
    }

    public struct Report: Sendable {
        /// The JSON array of the figures of all results.
        public let file: URL
        public let results: [BenchmarkResult]
        /// What could not be measured, by label.
        public let failures: [String: Failure]
        /// Why results did not reach the cloud.
        public let notSent: Failure?

        /// Whether something was measured, all of it is valid, and nothing failed.
        public var isGood: Bool {
            !results.isEmpty && failures.isEmpty && notSent == nil
                && results.allSatisfy { $0.validity == .valid }
        }
    }

    /// Throws a Failure where it does not come to a measurement.
    public func run() async throws -> Report {
        let measure = try await session().measure
        for choice in measure.choices {
            measure[isOn: choice.id] = request.wants(choice.label)
        }
        measure.iterations = request.iterations
        measure.warmUp = request.warmUp
        measure.coolDownSeconds = request.coolDownSeconds
        measure.start()
        await measure.settle()
        if request.cloud != nil { await measure.sendToCloud() }
        try FileManager.default.createDirectory(
            at: platform.documents, withIntermediateDirectories: true
        )
        let file = platform.documents.appending(path: request.output)
        try measure.report().write(to: file, options: .atomic)
        return Report(
            file: file, results: measure.results, failures: failures(of: measure),
            notSent: notSent(of: measure)
        )
    }

    private func session() async throws -> Session {
        let app = AppModel(platform: platform)
        if let cloud = request.cloud {
            app.connect(to: Pairing(address: cloud, publisher: request.publisher))
        } else {
            app.useEmbeddedBundle()
        }
        await app.settle()
        switch app.phase {
        case .running(let session): return session
        case .disconnected(let failure?): throw failure
        case .confirming(let candidate):
            throw Failure.told(
                code: RefusalCode.bundleUnknownKey.rawValue,
                message: "name the publisher: --publisher \(candidate.publisher)"
            )
        default: throw Failure.noBundle
        }
    }

    private func failures(of measure: MeasureModel) -> [String: Failure] {
        guard case .finished(let findings) = measure.state else { return [:] }
        return findings.reduce(into: [:]) { failures, finding in
            if case .failed(let label, let failure) = finding { failures[label] = failure }
        }
    }

    private func notSent(of measure: MeasureModel) -> Failure? {
        if case .failed(let failure) = measure.upload { failure } else { nil }
    }
}
