import Foundation
import Testing

@testable import PersonaKit

/// A device with its gate: what it was told counts, and what became of its edit.
struct DriftDecisionTests {
    private let given: PhoneAndCloud
    private let clock = SetClock(PhoneAndCloud.start)

    init() throws {
        given = try PhoneAndCloud()
    }

    private func phone() throws -> LiveModel {
        try given.phone { [clock] in clock.now }
    }

    private func decision(_ phone: LiveModel) async -> DriftDecision {
        await phone.driftDecision(for: PhoneAndCloud.window)
    }

    @Test func whatTheCloudAnsweredIsToldWhateverBecomesOfTheEdit() async throws {
        let server = try LocalServer([.enrolment, .edit(1, SigningKey())])
        let live = try phone()
        #expect(await decision(live) == .ask(.neverAsked))
        #expect(try await given.outcome(live, server) == "edit.unknown_key")
        #expect(await decision(live) == .rest(drift: 0))
        #expect(await decision(try phone()) == .rest(drift: 0))
        let elsewhere = WindowObservation.items([0, 0, 0, 0])
        #expect(await live.driftDecision(for: elsewhere) == .ask(.drifted(4)))
    }

    @Test func whatTheCloudRefusedToAnswerIsNotTold() async throws {
        let server = try LocalServer([.enrolment, .refusal(403, "quota.day")])
        let live = try phone()
        #expect(try await given.outcome(live, server) == "quota.day")
        #expect(await decision(live) == .ask(.neverAsked))
    }

    @Test func aCloudThatKnowsTheDeviceNoMoreWasToldNothing() async throws {
        let server = try LocalServer([
            .enrolment, .edit(1, given.editKey),
            .refusal(401, "token.unknown"), .refusal(401, "token.unknown"),
            .enrolment(as: "another"), .refusal(403, "quota.day"),
        ])
        let live = try phone()
        #expect(try await given.outcome(live, server) == "ok")
        #expect(await decision(live) == .rest(drift: 0))
        #expect(try await given.outcome(live, server) == "quota.day")
        #expect(await live.status.device == "another")
        #expect(await decision(live) == .ask(.neverAsked))
    }

    @Test func aRenewedTokenLeavesTheDeviceKnown() async throws {
        let server = try LocalServer([
            .enrolment, .edit(1, given.editKey), .refusal(401, "token.expired"),
            .init(body: #"{"token": "u"}"#), .refusal(403, "quota.day"),
        ])
        let live = try phone()
        #expect(try await given.outcome(live, server) == "ok")
        #expect(try await given.outcome(live, server) == "quota.day")
        #expect(await decision(live) == .rest(drift: 0))
    }

    @Test func anEditIsRenewedAtTheEndOfItsTimeAndWhenItNoLongerRuns() async throws {
        let server = try LocalServer([.enrolment, .edit(1, given.editKey)])
        let live = try phone()
        #expect(try await given.outcome(live, server) == "ok")
        let week = 7.0 * 86_400
        clock.now = PhoneAndCloud.start.addingTimeInterval(0.9 * week)
        #expect(await decision(live) == .rest(drift: 0))
        clock.now += 1
        #expect(await decision(live) == .ask(.expiring))
        guard case .edit = await live.state else {
            Issue.record("it ended too early: \(await live.state)")
            return
        }
        clock.now = PhoneAndCloud.start.addingTimeInterval(week)
        #expect(await decision(live) == .ask(.expiring))
        #expect(await live.state == .prototype(0))
        // It stays over, however much time a clock that was set back leaves it.
        clock.now = PhoneAndCloud.start
        #expect(await decision(live) == .ask(.expiring))
    }

    @Test func anEditThatRestsForAWrongClockIsRenewed() async throws {
        let server = try LocalServer([.enrolment, .edit(1, given.editKey)])
        #expect(try await given.outcome(try phone(), server) == "ok")
        clock.now = PhoneAndCloud.start.addingTimeInterval(-86_400)
        let early = try phone()
        #expect(await early.state == .prototype(0))
        #expect(await decision(early) == .ask(.expiring))
    }

    @Test func afterARollBackTheBaseRunsUntilTheWindowDrifts() async throws {
        let server = try LocalServer([.enrolment, .edit(1, given.editKey)])
        let live = try phone()
        #expect(try await given.outcome(live, server) == "ok")
        try await live.rollBack()
        clock.now += 30 * 86_400
        #expect(await decision(live) == .rest(drift: 0))
    }
}

/// A clock that stands until it is set.
private final class SetClock: @unchecked Sendable {
    private let lock = NSLock()
    private var time: Date

    init(_ time: Date) {
        self.time = time
    }

    var now: Date {
        get { lock.withLock { time } }
        set { lock.withLock { time = newValue } }
    }
}
