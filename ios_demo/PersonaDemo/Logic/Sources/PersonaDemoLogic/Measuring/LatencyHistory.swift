// Earlier medians of one way of running, and the one that others are compared with.

import Foundation

public struct LatencyHistory: Hashable, Sendable, Identifiable {
    public struct Entry: Hashable, Sendable, Identifiable {
        public let id: String
        public let date: Date
        /// Of the edited calls, in microseconds.
        public let p50: Double
        public let isValid: Bool

        public init(id: String, date: Date, p50: Double, isValid: Bool) {
            self.id = id
            self.date = date
            self.p50 = p50
            self.isValid = isValid
        }
    }

    public let label: String
    /// The newest first.
    public let entries: [Entry]
    /// The chosen one, else the oldest that is valid.
    public let baseline: Entry?

    public var id: String { label }

    public init(label: String, entries: [Entry], chosen: Entry.ID?) {
        self.label = label
        self.entries = entries.sorted { $0.date > $1.date }
        let valid = self.entries.filter(\.isValid)
        baseline = valid.first { $0.id == chosen } ?? valid.last
    }
}
