// Where the app begins: with its screens, or, when launched for a benchmark, without.

import PersonaDemoLogic
import SwiftUI

@main
struct PersonaDemoApp: App {
    @State private var model = AppModel(platform: .phone)

    var body: some Scene {
        WindowGroup {
            switch Launch.current {
            case .screens: RootView(model: model)
            case .benchmark(let request): BenchmarkView(request: request)
            case .misuse(let fault): MisuseView(fault: fault)
            case .testHost: Text(verbatim: "")
            }
        }
    }
}

/// Why the app was launched.
private enum Launch {
    case screens
    case benchmark(BenchmarkRequest)
    case misuse(UsageFault)
    /// Unit tests run in this process: nothing else may, or it would disturb their measurements.
    case testHost

    static let current: Launch = {
        let process = ProcessInfo.processInfo
        if process.environment["XCTestBundlePath"] != nil { return .testHost }
        do throws(UsageFault) {
            let arguments = Array(process.arguments.dropFirst())
            let request = try BenchmarkRequest(
                arguments: arguments, environment: process.environment
            )
            return request.map(Launch.benchmark) ?? .screens
        } catch {
            return .misuse(error)
        }
    }()
}
