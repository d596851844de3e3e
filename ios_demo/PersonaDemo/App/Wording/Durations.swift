// Times as people read them.

import Foundation

extension Double {
    /// Of a number of milliseconds.
    var milliseconds: String {
        Measurement(value: self, unit: UnitDuration.milliseconds)
            .formatted(
                .measurement(width: .abbreviated, usage: .asProvided, numberFormatStyle: .shortTime)
            )
    }

    /// Of a number of microseconds; in milliseconds from ten of those on.
    var microseconds: String {
        guard self < 10_000 else { return (self / 1000).milliseconds }
        return Measurement(value: self, unit: UnitDuration.microseconds)
            .formatted(
                .measurement(width: .abbreviated, usage: .asProvided, numberFormatStyle: .shortTime)
            )
    }
}

extension FloatingPointFormatStyle<Double> {
    fileprivate static var shortTime: Self {
        .init().precision(.significantDigits(1...4)).grouping(.automatic)
    }
}
