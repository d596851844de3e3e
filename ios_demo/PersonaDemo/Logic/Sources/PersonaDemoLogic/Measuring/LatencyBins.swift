// A histogram of two sets of times over the same bins, with the quantiles that reports name.

import PersonaKit

public struct LatencyBins: Hashable, Sendable {
    public struct Bin: Hashable, Sendable, Identifiable {
        public let id: Int
        /// Microseconds; the last bin also holds what is above it.
        public let lower, upper: Double
        public let base, edited: Int
    }

    public struct Mark: Hashable, Sendable, Identifiable {
        public let name: String
        public let microseconds: Double

        public var id: String { name }
    }

    public let bins: [Bin]
    /// p50, p90 and p99 of the edited times.
    public let marks: [Mark]

    /// Microseconds that the bins span at least: times may all be the same.
    private static let narrowest = 1.0

    /// From the smallest time to the 99.5 % quantile, so that a single hiccup flattens nothing.
    /// Without times on either side there are neither bins nor marks.
    public init(base: [Double], edited: [Double], count: Int = 30) {
        let all = base + edited
        guard let least = all.min(), !base.isEmpty, !edited.isEmpty else {
            bins = []
            marks = []
            return
        }
        let most = max(Statistics.quantile(all, 0.995), least + Self.narrowest)
        let width = (most - least) / Double(count)
        let counts = [base, edited].map { times in
            Statistics.histogram(times, in: least...most, bins: count)
        }
        bins = (0..<count).map { index in
            Bin(
                id: index, lower: least + width * Double(index),
                upper: least + width * Double(index + 1),
                base: counts[0][index], edited: counts[1][index]
            )
        }
        marks = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)].map { name, share in
            Mark(name: name, microseconds: min(Statistics.quantile(edited, share), most))
        }
    }
}
