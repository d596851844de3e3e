import Foundation
import Testing

@testable import PersonaKit

struct NumberTests {
    #if arch(arm64) || os(Linux)
        @Test func everyHalfWidensAsTheCompilersOwnDoes() {
            for pattern in UInt16.min...UInt16.max {
                let own = Half.widened(pattern)
                let native = Float(Float16(bitPattern: pattern))
                #expect(own.bitPattern == native.bitPattern || (own.isNaN && native.isNaN))
            }
        }

        @Test func floatsNarrowToTheHalfThatTheCompilerChooses() {
            var random = SystemRandomNumberGenerator()
            for _ in 0..<200_000 {
                let value = Float(bitPattern: random.next())
                guard !value.isNaN else { continue }
                #expect(Half.narrowed(value) == Float16(value).bitPattern, "\(value)")
            }
            // Ties between two halves, at both sides of the smallest normal and near the largest.
            for value: Float in [0x1p-25, 0x3p-25, 0x1.002p-14, 2049, 2051, 65519, 65520, -0.0] {
                #expect(Half.narrowed(value) == Float16(value).bitPattern, "\(value)")
            }
        }
    #endif

    @Test func timesAreThoseOfFoundationsCalendarAndBack() {
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = TimeZone(identifier: "UTC")!
        for (year, month, day) in [
            (2024, 2, 29), (1970, 1, 1), (2000, 2, 29), (2100, 3, 1), (1900, 12, 31),
        ] {
            let components = DateComponents(
                year: year, month: month, day: day, hour: 23, minute: 5, second: 9)
            let date = calendar.date(from: components)!
            let text = Timestamp.format(date)
            #expect(Timestamp.parse(text) == date, "\(text)")
            #expect(text.hasPrefix("\(year)-"))
        }
        #expect(Timestamp.parse("2023-02-29T00:00:00Z") == nil)
        #expect(Timestamp.parse("2026-01-31T24:00:00Z") == nil)
    }

    @Test func quantilesAreThoseWorkedOutByHand() {
        let values = [40.0, 10, 30, 20]
        #expect(Statistics.quantile(values, 0.5) == 25)
        #expect(abs(Statistics.quantile(values, 0.9) - 37) < 1e-12)
        #expect(Statistics.quantile(values, 0) == 10 && Statistics.quantile(values, 1) == 40)
        #expect(Statistics.quantile([7], 0.99) == 7)
        #expect(Statistics.mean(values) == 25)
        #expect(Statistics.trimmedMean([1, 2, 3, 4, 1000], share: 0.2) == 3)
        #expect(abs(Statistics.standardDeviation([2, 4, 4, 4, 5, 5, 7, 9]) - 2.138089935) < 1e-9)
        #expect(
            Statistics.histogram([0, 1, 2, 9, 10, 99], in: 0...10, bins: 5) == [2, 1, 0, 0, 3])
        // Far beyond a very narrow range, where the place is no number that fits an Int.
        let narrow = Statistics.histogram([-1e300, 1, 1e300], in: 1...1.0.nextUp, bins: 4)
        #expect(narrow == [2, 0, 0, 1])
    }

    @Test func stridesLeadOverPadding() {
        // Two rows of three, padded to four; then the same transposed.
        #expect(StridedLayout.offsets(shape: [2, 3], strides: [4, 1]) == [0, 1, 2, 4, 5, 6])
        #expect(StridedLayout.offsets(shape: [3, 2], strides: [1, 4]) == [0, 4, 1, 5, 2, 6])
        #expect(StridedLayout.offsets(shape: [1, 2, 2], strides: [64, 32, 1]) == [0, 1, 32, 33])
    }

    @Test func numbersKeepTheirSpelling() throws {
        let document = try StrictJSONReader.parse(Data("[3, 3.0, 3e0, -0, 1E2]".utf8)).list
        let wholes = document.map { value -> Int64? in
            if case .number(let number) = value { number.whole } else { nil }
        }
        #expect(wholes == [3, nil, nil, nil, nil])
    }

    @Test func whatIsWrittenIsReadBack() throws {
        let value = JSONValue.object([
            JSONMember("é", .string("\"\\\u{1}\n\u{1F600}")), JSONMember("e\u{301}", .real(0.1)),
            JSONMember("list", .array([.null, .bool(true), .whole(-5)])),
        ])
        #expect(try StrictJSONReader.parse(value.encoded()) == value)
        let foundation = try JSONSerialization.jsonObject(with: value.encoded()) as? [String: Any]
        #expect((foundation?["list"] as? [Any])?.count == 3)
    }
}
