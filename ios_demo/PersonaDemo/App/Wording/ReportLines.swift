// A headless run's outcome for the terminal. Not translated: programs read it, too.

import Foundation
import PersonaDemoLogic
import PersonaKit

extension HeadlessBenchmark.Report {
    var lines: [String] {
        results.map(\.line)
            + failures.sorted { $0.key < $1.key }.map { "\($0.key): failed: \($0.value.line)" }
            + (notSent.map { ["not sent: \($0.line)"] } ?? [])
            + ["written: \(file.path)"]
    }
}

extension BenchmarkResult {
    fileprivate var line: String {
        let edited = measurement.edited
        let times = [edited.p50, edited.p90, edited.p99].map {
            $0.formatted(.number.grouping(.never))
        }
        return """
            \(label): p50 \(times[0]), p90 \(times[1]), p99 \(times[2]) microseconds, \
            ran on \(placement.summary), \(validity.line)
            """
    }
}

extension Validity {
    fileprivate var line: String {
        switch self {
        case .valid: "valid"
        case .invalid(let reasons): "NOT VALID: \(reasons.map(\.message).joined(separator: "; "))"
        }
    }
}
