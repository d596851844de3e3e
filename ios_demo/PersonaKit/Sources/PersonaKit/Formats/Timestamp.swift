/// Times as the contract spells them: UTC, whole seconds, `2026-01-31T12:00:00Z`.

import Foundation

enum Timestamp {
    /// Seconds since 1970 of a *time*; nil for any other spelling. Own arithmetic, because
    /// Foundation's formatters take more than this one spelling.
    static func parse(_ text: String) -> Date? {
        let bytes = Array(text.utf8)
        let punctuation: [Int: UInt8] = [
            4: UInt8(ascii: "-"), 7: UInt8(ascii: "-"), 10: UInt8(ascii: "T"),
            13: UInt8(ascii: ":"), 16: UInt8(ascii: ":"), 19: UInt8(ascii: "Z"),
        ]
        guard bytes.count == 20 else { return nil }
        for (index, byte) in bytes.enumerated() {
            if let wanted = punctuation[index] {
                guard byte == wanted else { return nil }
            } else if !(UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
                return nil
            }
        }
        func number(_ range: Range<Int>) -> Int {
            bytes[range].reduce(0) { 10 * $0 + Int($1 - UInt8(ascii: "0")) }
        }
        let (year, month, day) = (number(0..<4), number(5..<7), number(8..<10))
        let (hour, minute, second) = (number(11..<13), number(14..<16), number(17..<19))
        guard year >= 1, (1...12).contains(month), (1...length(of: month, in: year)).contains(day),
            hour < 24, minute < 60, second < 60
        else { return nil }
        let days = daysBefore(year: year, month: month) + day - 1
        return Date(
            timeIntervalSince1970: Double(days * 86400 + hour * 3600 + minute * 60 + second))
    }

    /// The spelling of a moment, whole seconds down.
    static func format(_ date: Date) -> String {
        let seconds = Int(date.timeIntervalSince1970.rounded(.down))
        let (days, rest) = seconds.quotientAndRemainderDown(by: 86400)
        var year = 1970 + days / 366
        while daysBefore(year: year + 1, month: 1) <= days { year += 1 }
        while daysBefore(year: year, month: 1) > days { year -= 1 }
        var month = 1
        while month < 12, daysBefore(year: year, month: month + 1) <= days { month += 1 }
        let day = days - daysBefore(year: year, month: month) + 1
        func padded(_ number: Int, _ width: Int) -> String {
            let digits = String(number)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))"
            + "T\(padded(rest / 3600, 2)):\(padded(rest / 60 % 60, 2)):\(padded(rest % 60, 2))Z"
    }

    private static func isLeap(_ year: Int) -> Bool {
        year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
    }

    private static func length(of month: Int, in year: Int) -> Int {
        switch month {
        case 2: isLeap(year) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    /// Days from 1970-01-01 to the first of a month, in the Gregorian calendar.
    private static func daysBefore(year: Int, month: Int) -> Int {
        let before = year - 1
        let leapDays = before / 4 - before / 100 + before / 400
        let toYear = before * 365 + leapDays - 719_162
        return (1..<month).reduce(toYear) { $0 + length(of: $1, in: year) }
    }
}

extension Int {
    fileprivate func quotientAndRemainderDown(by divisor: Int) -> (Int, Int) {
        let remainder = (self % divisor + divisor) % divisor
        return ((self - remainder) / divisor, remainder)
    }
}
