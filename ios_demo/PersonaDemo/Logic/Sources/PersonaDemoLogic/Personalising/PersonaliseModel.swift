// The Personalise screen: a window of live samples, what runs, and the way to an edit and back.

import Foundation
import Observation
import PersonaKit

@MainActor @Observable
public final class PersonaliseModel {
    public enum Activity: Hashable, Sendable {
        case idle
        case asking
        case rollingBack
    }

    /// What the person has given so far.
    public enum Samples: Hashable, Sendable {
        /// The newest last, at most as many as the window takes.
        case digits([DigitSample])
        case items(ItemDeck, RankComparison?)
        case golden([GoldenComparison])
    }

    public struct GoldenComparison: Hashable, Sendable, Identifiable {
        public let id: Int
        public let comparison: ClassComparison
    }

    public let form: SampleForm
    public let minCount, maxCount: Int
    public private(set) var running = Running.base
    public private(set) var activity = Activity.idle
    public private(set) var samples: Samples
    public private(set) var outcome: RequestOutcome?
    public private(set) var reach: Reach
    /// What the gate says of the window; nil until it is long enough.
    public private(set) var drift: DriftDecision?
    public var automatic = AutomaticMode()
    public var look = CameraLook.plain
    /// Of the hand that draws by itself; another hand's after the window was cleared.
    public private(set) var habits: DigitHabits

    @ObservationIgnored private let live: LiveModel
    @ObservationIgnored private let cloud: CloudClient?
    @ObservationIgnored private let now: @Sendable () -> Date
    @ObservationIgnored private var generator = SystemRandomNumberGenerator()
    @ObservationIgnored private var asked = false
    @ObservationIgnored private var nextSample = 0

    static let deckSize = 20

    init(
        live: LiveModel, cloud: CloudClient?, now: @escaping @Sendable () -> Date = Date.init
    ) {
        let manifest = live.bundle.manifest
        self.live = live
        self.cloud = cloud
        habits = DigitHabits(using: &generator)
        self.now = now
        form = SampleForm(manifest)
        minCount = manifest.observation.minCount
        maxCount = manifest.observation.maxCount
        reach = cloud == nil ? .noCloud : .unknown
        switch form {
        case .digit: samples = .digits([])
        case .items(let form):
            let size = min(Self.deckSize, form.maxCandidates)
            samples = .items(
                ItemDeck(vocabulary: form.vocabulary, size: size, using: &generator), nil
            )
        case .golden: samples = .golden([])
        }
    }

    /// How many samples the window holds.
    public var count: Int {
        switch samples {
        case .digits(let digits): digits.count
        case .items(let deck, _): min(deck.history.count, maxCount)
        case .golden: goldenWindow.count
        }
    }

    public var isReady: Bool { count >= minCount }
    public var canAsk: Bool { isReady && activity == .idle }

    /// Of the last new edit, for the measurement record.
    public var editToActiveMilliseconds: Double? {
        guard case .newEdit(_, let milliseconds, _) = outcome else { return nil }
        return milliseconds
    }

    public var tally: Tally? {
        guard case .digits(let digits) = samples else { return nil }
        let tally = Tally(digits)
        return tally.labelled == 0 ? nil : tally
    }

    // MARK: - Samples

    /// Adds a drawing as this phone's camera takes it.
    public func add(_ drawing: DigitDrawing, label: Int? = nil) async {
        guard case .digit(let frame) = form, case .digits(var digits) = samples, !drawing.isEmpty
        else { return }
        let pixels = look.taken(
            drawing.pixels(frame), width: frame.width, height: frame.height, using: &generator
        )
        digits.append(DigitSample(id: nextSample, pixels: pixels, frame: frame, label: label))
        nextSample += 1
        samples = .digits(digits.suffix(maxCount))
        await windowChanged()
    }

    /// Adds drawings of a hand of its own, with their labels.
    public func fill(_ count: Int) async {
        var hand = DigitHand(using: generator)
        for _ in 0..<count {
            let digit = habits.next(using: &generator)
            await add(hand.draw(digit), label: digit)
        }
    }

    /// What somebody says that a sample is; stays on the phone.
    public subscript(label sample: DigitSample.ID) -> Int? {
        get {
            guard case .digits(let digits) = samples else { return nil }
            return digits.first { $0.id == sample }?.label
        }
        set {
            guard case .digits(var digits) = samples,
                let place = digits.firstIndex(where: { $0.id == sample })
            else { return }
            digits[place].label = newValue
            samples = .digits(digits)
        }
    }

    public func clearSamples() async {
        habits = DigitHabits(using: &generator)
        switch form {
        case .digit: samples = .digits([])
        case .items(let form):
            let size = min(Self.deckSize, form.maxCandidates)
            samples = .items(
                ItemDeck(vocabulary: form.vocabulary, size: size, using: &generator), nil
            )
        case .golden: return
        }
        await windowChanged()
    }

    public func open(_ item: Int64) async {
        guard case .items(var deck, let comparison) = samples else { return }
        deck.open(item, using: &generator)
        samples = .items(deck, comparison)
        await windowChanged()
    }

    public func pass() {
        guard case .items(var deck, let comparison) = samples else { return }
        deck.pass()
        samples = .items(deck, comparison)
    }

    // MARK: - Edits

    /// Asks the cloud for an edit; without the cloud it falls back to a prototype.
    public func ask() async {
        guard canAsk else { return }
        activity = .asking
        do {
            let observation = try await observe()
            if let cloud {
                let came = await live.personalise(with: cloud, observation: observation)
                finish(came)
            } else {
                _ = await live.fallBack(observation)
            }
        } catch {
            outcome = .kept(Failure(error))
        }
        activity = .idle
        await readGate()
        await refresh()
    }

    private func finish(_ came: Personalisation) {
        let outcome = RequestOutcome(came)
        if case .newEdit = outcome { asked = true }
        self.outcome = outcome
        reach = reach.after(came, at: now())
        automatic.learn(outcome, at: now())
    }

    /// Takes the edit back: the base runs again, also after a restart.
    public func rollBack() async {
        guard activity == .idle else { return }
        activity = .rollingBack
        do {
            try await live.rollBack()
            outcome = nil
        } catch {
            outcome = .kept(Failure(error))
        }
        activity = .idle
        await refresh()
    }

    /// Looks at what runs, and answers all samples anew.
    public func refresh() async {
        let status = await live.status
        running =
            switch status.state {
            case .base: .base
            case .prototype(let index): .prototype(index)
            case .edit(let edit):
                .edit(
                    EditSummary(
                        sequence: edit.info.sequence,
                        prototype: edit.info.prototype,
                        issuedAt: edit.info.issuedAt,
                        expiresAt: edit.info.expiresAt,
                        bytes: status.editBytes ?? 0,
                        source: asked ? .cloud : .storage
                    )
                )
            }
        await compare()
    }

    private func windowChanged() async {
        await compareNew()
        await readGate()
        if let drift, automatic.asks(drift, busy: activity != .idle, at: now()) {
            await ask()
        }
    }

    private func readGate() async {
        guard isReady, let observation = try? await observe() else {
            drift = nil
            return
        }
        drift = await live.driftDecision(for: observation)
    }

    private func observe() async throws -> WindowObservation {
        switch samples {
        case .digits(let digits): try await live.observe(digits.map(\.inputs))
        case .items(let deck, _): try await live.observe(items: deck.history.suffix(maxCount))
        case .golden: try await live.observe(goldenWindow)
        }
    }

    /// The golden inputs as a window; none where the bundle observes item ids.
    private var goldenWindow: [[ModelInput]] {
        guard case .pooled = live.bundle.manifest.observation else { return [] }
        return live.bundle.golden.inputs
    }

    // MARK: - Before and after

    private func compareNew() async {
        guard case .digits(let digits) = samples else { return await compare() }
        await compareDigits(digits.filter { $0.comparison == nil })
    }

    private func compare() async {
        switch samples {
        case .digits(let digits): await compareDigits(digits)
        case .items(let deck, _): await compareItems(deck)
        case .golden: await compareGolden()
        }
    }

    private func compareDigits(_ digits: [DigitSample]) async {
        var compared = [DigitSample.ID: ClassComparison]()
        for digit in digits {
            compared[digit.id] = await classes(digit.inputs)
        }
        // Samples may have come, gone or been labelled meanwhile.
        guard case .digits(let current) = samples else { return }
        samples = .digits(
            current.map { sample in
                var sample = sample
                sample.comparison = compared[sample.id] ?? sample.comparison
                return sample
            }
        )
    }

    private func compareItems(_ deck: ItemDeck) async {
        guard case .items(let form) = form, !deck.history.isEmpty else { return }
        let items = deck.cards
        guard
            let both = await answers(form.inputs(history: deck.history, candidates: items)),
            case .items(let current, _) = samples
        else { return }
        let comparison = RankComparison(items: items, before: both.before, after: both.after)
        samples = .items(current, comparison)
    }

    private func compareGolden() async {
        var compared = [GoldenComparison]()
        for (index, inputs) in live.bundle.golden.inputs.enumerated() {
            guard let comparison = await classes(inputs) else { continue }
            compared.append(GoldenComparison(id: index, comparison: comparison))
        }
        samples = .golden(compared)
    }

    private func classes(_ inputs: [ModelInput]) async -> ClassComparison? {
        await answers(inputs).map { ClassComparison(before: $0.before, after: $0.after) }
    }

    /// What the base and what the running model make of the same inputs.
    private func answers(_ inputs: [ModelInput]) async -> (before: [Float], after: [Float])? {
        do {
            let before = try await live.predictBase(inputs)
            return (before.values, try await live.predict(inputs).values)
        } catch {
            outcome = .kept(Failure(error))
            return nil
        }
    }
}
