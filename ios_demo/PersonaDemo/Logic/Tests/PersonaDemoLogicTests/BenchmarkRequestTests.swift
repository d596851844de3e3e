import Testing

@testable import PersonaDemoLogic

@Suite struct BenchmarkRequestTests {
    @Test func withoutTheWordThereIsNoBenchmark() throws {
        #expect(try BenchmarkRequest(arguments: ["--iterations", "3"], environment: [:]) == nil)
        #expect(
            try BenchmarkRequest(arguments: [], environment: ["PERSONA_ITERATIONS": "3"]) == nil
        )
    }

    @Test func argumentsWinOverTheEnvironment() throws {
        let request = try #require(
            try BenchmarkRequest(
                arguments: ["--benchmark", "--iterations", "30", "--cool-down", "0.5"],
                environment: ["PERSONA_ITERATIONS": "7", "PERSONA_WARM_UP": "4"]
            )
        )
        #expect(request.iterations == 30)
        #expect(request.warmUp == 4)
        #expect(request.coolDownSeconds == 0.5)
    }

    @Test func theEnvironmentAloneIsEnough() throws {
        let request = try #require(
            try BenchmarkRequest(
                arguments: [],
                environment: ["PERSONA_BENCHMARK": "1", "PERSONA_PROGRAM": "coreml fp16,xnnpack"]
            )
        )
        #expect(request.wants("coreml fp16, cpuOnly"))
        #expect(request.wants("executorch-xnnpack fp32"))
        #expect(!request.wants("coreml fp32, all"))
    }

    @Test func argumentsOfXcodeArePassedOver() throws {
        let request = try BenchmarkRequest(
            arguments: ["-NSDocumentRevisionsDebugMode", "YES", "--benchmark"], environment: [:]
        )
        #expect(request == BenchmarkRequest())
    }

    @Test func aMistypedOptionIsNotPassedOver() {
        #expect(throws: UsageFault.unknown(option: "--iteration")) {
            try BenchmarkRequest(arguments: ["--benchmark", "--iteration", "3"], environment: [:])
        }
    }

    @Test(arguments: [
        ("--iterations", "0"), ("--iterations", "many"), ("--warm-up", "-1"),
        ("--cool-down", "nan"), ("--output", "../elsewhere.json"), ("--output", ""),
        ("--cloud", "http://example.org"),
    ])
    func valuesThatCannotBeAreRefused(option: String, value: String) {
        #expect(throws: UsageFault.invalid(option: option, value: value)) {
            try BenchmarkRequest(arguments: ["--benchmark", option, value], environment: [:])
        }
    }

    @Test func anOptionWithoutItsValueIsRefused() {
        #expect(throws: UsageFault.invalid(option: "--output", value: "")) {
            try BenchmarkRequest(arguments: ["--benchmark", "--output"], environment: [:])
        }
    }
}
