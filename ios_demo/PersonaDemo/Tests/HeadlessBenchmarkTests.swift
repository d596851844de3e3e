// The benchmark of the bundle in the app, as the test plan “Benchmark” runs it. Its options are the
// plan's environment variables; its report is attached to the test's result.

import PersonaDemoLogic
import XCTest

@testable import PersonaDemo

final class HeadlessBenchmarkTests: XCTestCase {
    @MainActor
    func testEveryWayOfRunningIsMeasured() async throws {
        let request = try XCTUnwrap(
            BenchmarkRequest(arguments: [], environment: ProcessInfo.processInfo.environment),
            "run the test plan “Benchmark”: it sets PERSONA_BENCHMARK"
        )
        let report = try await HeadlessBenchmark(request, platform: .phone).run()

        let attachment = XCTAttachment(contentsOfFile: report.file)
        attachment.name = request.output
        attachment.lifetime = .keepAlways
        add(attachment)
        for line in report.lines { print(line) }

        XCTAssertFalse(report.results.isEmpty)
        XCTAssertEqual(report.failures, [:])
        for result in report.results {
            XCTAssertGreaterThanOrEqual(result.editedMicroseconds.count, request.iterations)
            XCTAssertEqual(result.measurement.edited.iterations, result.editedMicroseconds.count)
        }
    }

    /// Whatever was asked for, a result names the processor that the compute plan prefers.
    @MainActor
    func testNoResultOnTheSimulatorClaimsTheNeuralEngine() async throws {
        #if targetEnvironment(simulator)
            var request = BenchmarkRequest()
            request.iterations = 20
            request.coolDownSeconds = 0
            request.programs = ["coreml"]
            request.output = "placement.json"
            let report = try await HeadlessBenchmark(request, platform: .phone).run()
            for result in report.results {
                XCTAssertFalse(result.measurement.delegates.contains("neural-engine"), result.label)
            }
        #else
            throw XCTSkip("a phone may have a Neural Engine; the simulator has none")
        #endif
    }
}
