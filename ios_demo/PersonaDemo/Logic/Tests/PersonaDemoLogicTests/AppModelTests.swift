import Foundation
import Testing

@testable import PersonaDemoLogic
@testable import PersonaKit

@MainActor @Suite struct AppModelTests {
    let scratch = Scratch()

    /// A whole bundle with a good signature, whose program is none.
    private let complete = URL(filePath: #filePath)
        .appending(path: "../../../../../../tests/conformance/bundles/complete").standardizedFileURL

    private func failure(_ model: AppModel) -> Failure? {
        guard case .disconnected(let failure) = model.phase else { return nil }
        return failure
    }

    private func candidate() -> PersonaDemoLogic.Candidate {
        .init(bundle: DigitModel.bundle(folder: scratch.url), cloud: nil)
    }

    @Test func withoutABundleItSaysNothingAndWaits() async {
        let model = AppModel(platform: scratch.platform([]))
        model.start()
        await model.settle()
        guard case .disconnected(nil) = model.phase else { return #expect(Bool(false)) }
        model.useEmbeddedBundle()
        await model.settle()
        #expect(failure(model) == .noBundle)
    }

    @Test func aBundleForOtherDevicesIsNamedSo() async {
        let model = AppModel(platform: scratch.platform([], embedded: complete))
        model.start()
        await model.settle()
        #expect(failure(model) == .noProgram(targets: ["cpu"]))
    }

    @Test func aBrokenBundleIsRefusedWithItsCode() async throws {
        let broken = scratch.url.appending(path: "broken")
        try FileManager.default.createDirectory(at: scratch.url, withIntermediateDirectories: true)
        try FileManager.default.copyItem(at: complete, to: broken)
        try Data("x".utf8).write(to: broken.appending(path: "stray"))
        let model = AppModel(platform: scratch.platform([], embedded: broken))
        model.useEmbeddedBundle()
        await model.settle()
        guard case .told(let code, _) = failure(model) else { return #expect(Bool(false)) }
        #expect(code == "bundle.file_unlisted")
    }

    @Test func aBundleOfAnotherPublisherThanTheTrustedOneIsRefused() async throws {
        let stored = Connection(
            cloud: nil, bundle: "", publisherKey: DigitModel.signingKey.der
        )
        try stored.save(in: scratch.url)
        let model = AppModel(platform: scratch.platform([], embedded: complete))
        model.start()
        await model.settle()
        guard case .told(let code, _) = failure(model) else { return #expect(Bool(false)) }
        #expect(code == "bundle.unknown_key")
    }

    @Test func anUnreachableCloudIsTold() async throws {
        let model = AppModel(platform: scratch.platform([]))
        model.connect(to: Pairing(address: try CloudAddress("127.0.0.1:9"), publisher: nil))
        guard case .disconnected = model.phase else {
            await model.settle()
            guard case .told(let code, _) = failure(model) else { return #expect(Bool(false)) }
            #expect(code == "cloud.offline")
            return
        }
        await model.settle()
        #expect(failure(model) != nil)
    }

    @Test func aTrustedPublisherIsRememberedUntilDisconnected() async throws {
        let model = AppModel(platform: scratch.platform([DigitLoader.factory("good")]))
        model.trust(candidate())
        await model.settle()
        #expect(model.session?.engine == "good")
        #expect(Connection.load(from: scratch.url)?.publisher == "5a194e0635a57834")
        model.cancel()
        #expect(model.session == nil)
        #expect(model.canResume)
        model.disconnect()
        #expect(!model.canResume)
        #expect(Connection.load(from: scratch.url) == nil)
    }

    @Test func theFirstEngineThatGivesTheGoldenOutputsRuns() async {
        let engines = [DigitLoader.factory("broken", offset: 1), DigitLoader.factory("good")]
        let model = AppModel(platform: scratch.platform(engines))
        model.trust(candidate())
        await model.settle()
        #expect(model.session?.engine == "good")
        #expect(model.session?.measure.choices.map(\.label) == ["broken", "good"])
    }

    @Test func whereNoneDoesTheFirstOnesFaultIsTold() async {
        let engines = [DigitLoader.factory("broken", offset: 1)]
        let model = AppModel(platform: scratch.platform(engines))
        model.trust(candidate())
        await model.settle()
        guard case .told(let code, _) = failure(model) else { return #expect(Bool(false)) }
        #expect(code == "bundle.golden_mismatch")
    }

    @Test func whatIsInspectedIsWhatTheBundleHolds() async throws {
        let model = AppModel(platform: scratch.platform([DigitLoader.factory("good")]))
        model.trust(candidate())
        await model.settle()
        let inspect = try #require(model.session?.inspect)
        #expect(inspect.slots.map(\.shape) == ["10 × 2"])
        #expect(inspect.slots.map(\.values) == [30])
        #expect(inspect.programs.map(\.id) == ["coreml fp32"])
        #expect(inspect.device == nil)
    }

    @Test func aHeadlessBenchmarkWithoutABundleSaysSo() async {
        let benchmark = HeadlessBenchmark(BenchmarkRequest(), platform: scratch.platform([]))
        await #expect(throws: Failure.noBundle) { try await benchmark.run() }
    }
}

@Suite struct SampleFormTests {
    private let candidates = ModelPort(
        name: "candidates", dtype: .int64, shape: [1, -1],
        free: [FreeDimension(name: "n", min: 1, max: 100)]
    )
    private let history = ModelPort(name: "history", dtype: .int64, shape: [1, 4], free: [])

    @Test(arguments: [true, false])
    func aHistoryIsPaddedOnTheLeftAndKeepsTheNewest(historyFirst: Bool) throws {
        let ports = historyFirst ? [history, candidates] : [candidates, history]
        let form = try #require(ItemForm(ports, vocabulary: 50))
        #expect(form.maxCandidates == 100)
        let short = form.inputs(history: [7, 8], candidates: [1, 2, 3])
        let long = form.inputs(history: [1, 2, 3, 4, 5], candidates: [9])
        let place = historyFirst ? 0 : 1
        #expect(short[place] == .int64(IntTensor(shape: [1, 4], values: [0, 0, 7, 8])))
        #expect(short[1 - place] == .int64(IntTensor(shape: [1, 3], values: [1, 2, 3])))
        #expect(long[place] == .int64(IntTensor(shape: [1, 4], values: [2, 3, 4, 5])))
    }

    @Test func otherInputsAreNoItems() {
        #expect(ItemForm([history], vocabulary: 5) == nil)
        #expect(ItemForm([history, history], vocabulary: 5) == nil)
    }
}
