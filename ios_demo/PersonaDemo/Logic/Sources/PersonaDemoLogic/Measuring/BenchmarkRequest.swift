// A benchmark without anybody at the screen, asked for by launch arguments or the environment.
//
//     --benchmark --iterations 200 --program coreml --output result.json
//     PERSONA_BENCHMARK=1 PERSONA_ITERATIONS=200 PERSONA_PROGRAM=coreml PERSONA_OUTPUT=result.json
//
// An argument wins over its variable. Arguments of others (Xcode's begin with one hyphen) are passed
// over.

import Foundation

public struct BenchmarkRequest: Hashable, Sendable {
    public var iterations = 200
    public var warmUp = 20
    public var coolDownSeconds = 2.0
    /// Only programs whose label holds one of these; all where it is empty.
    public var programs: [String] = []
    /// A file in the app's documents.
    public var output = "benchmark.json"
    /// Where the bundle is fetched and the report sent to; without it, the bundle in the app.
    public var cloud: CloudAddress?
    public var publisher: String?

    public init() {}

    /// nil where no benchmark was asked for.
    public init?(arguments: [String], environment: [String: String]) throws(UsageFault) {
        guard
            arguments.contains("--benchmark") || environment["PERSONA_BENCHMARK"] == "1"
        else { return nil }
        for option in Option.allCases {
            if let text = environment[option.variable] { try set(option, to: text) }
        }
        var rest = arguments[...]
        while let name = rest.popFirst() {
            guard name.hasPrefix("--"), name != "--benchmark" else { continue }
            guard let option = Option(rawValue: String(name.dropFirst(2))) else {
                throw .unknown(option: name)
            }
            guard let text = rest.popFirst() else { throw .invalid(option: name, value: "") }
            try set(option, to: text)
        }
    }

    private enum Option: String, CaseIterable {
        case iterations
        case warmUp = "warm-up"
        case coolDown = "cool-down"
        case program
        case output
        case cloud
        case publisher

        var variable: String {
            "PERSONA_" + rawValue.uppercased().replacingOccurrences(of: "-", with: "_")
        }
    }

    private mutating func set(_ option: Option, to text: String) throws(UsageFault) {
        let invalid = UsageFault.invalid(option: "--\(option.rawValue)", value: text)
        switch option {
        case .iterations:
            guard let count = Int(text), count >= 1 else { throw invalid }
            iterations = count
        case .warmUp:
            guard let count = Int(text), count >= 0 else { throw invalid }
            warmUp = count
        case .coolDown:
            guard let seconds = Double(text), (0...3600).contains(seconds) else { throw invalid }
            coolDownSeconds = seconds
        case .program:
            programs = text.split(separator: ",").map(String.init)
        case .output:
            guard !text.isEmpty, !text.contains("/"), !text.hasPrefix(".") else { throw invalid }
            output = text
        case .cloud:
            do { cloud = try CloudAddress(text) } catch { throw invalid }
        case .publisher:
            publisher = text
        }
    }

    public func wants(_ label: String) -> Bool {
        programs.isEmpty || programs.contains { label.contains($0) }
    }
}

public enum UsageFault: LocalizedError, Hashable {
    case unknown(option: String)
    case invalid(option: String, value: String)

    public var errorDescription: String? {
        switch self {
        case .unknown(let option):
            "there is no option \(option); see “Without a screen” in ios_demo/README.md"
        case .invalid(let option, let value):
            "\(option) does not take “\(value)”; see “Without a screen” in ios_demo/README.md"
        }
    }
}
