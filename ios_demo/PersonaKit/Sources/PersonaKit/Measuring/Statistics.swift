/// Summaries of single timings.

import Foundation

public enum Statistics {
    /// The quantile q in [0, 1] of one value or more, by linear interpolation between the two
    /// nearest: Hyndman and Fan's type 7, which NumPy and R take by default.
    public static func quantile(_ values: [Double], _ q: Double) -> Double {
        let sorted = values.sorted()
        let position = q * Double(sorted.count - 1)
        let lower = Int(position.rounded(.down))
        let upper = min(lower + 1, sorted.count - 1)
        return sorted[lower] + (position - Double(lower)) * (sorted[upper] - sorted[lower])
    }

    public static func mean(_ values: [Double]) -> Double {
        values.reduce(0, +) / Double(values.count)
    }

    /// The mean without the `share` of smallest and the `share` of largest values.
    public static func trimmedMean(_ values: [Double], share: Double) -> Double {
        let cut = Int(Double(values.count) * share)
        return mean(Array(values.sorted()[cut..<values.count - cut]))
    }

    /// Of a sample: n − 1 in the denominator; 0 for a single value.
    public static func standardDeviation(_ values: [Double]) -> Double {
        guard values.count > 1 else { return 0 }
        let mean = mean(values)
        let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        return (squares / Double(values.count - 1)).squareRoot()
    }

    /// Counts of values in `count` equal bins over `range`; what is beyond counts in the outermost.
    public static func histogram(
        _ values: [Double], in range: ClosedRange<Double>, bins count: Int
    ) -> [Int] {
        let width = (range.upperBound - range.lowerBound) / Double(count)
        return values.reduce(into: Array(repeating: 0, count: count)) { bins, value in
            let place = width > 0 ? (value - range.lowerBound) / width : 0
            bins[Int(min(max(place, 0), Double(count - 1)))] += 1
        }
    }
}
