import Foundation
import Testing

@testable import PersonaKit

struct CloudClientTests {
    private actor Pauses {
        private(set) var seconds: [Double] = []
        func add(_ pause: Double) { seconds.append(pause) }
    }

    private let pauses = Pauses()
    private let observation = ObservationEnvelope(bundle: "b", observation: .items([1, 2, 3]))

    private func client(_ url: String, chance: Double = 0) throws -> CloudClient {
        try CloudClient(
            url: url, chance: { chance }, pause: { [pauses] in await pauses.add($0) }
        )
    }

    private func ask(
        _ server: LocalServer, chance: Double = 0
    ) async -> Result<SignedEdit, CloudError> {
        do {
            let edit = try await client(server.url, chance: chance)
                .requestEdit(model: "m", token: "t", envelope: observation)
            return .success(edit)
        } catch let error as CloudError {
            return .failure(error)
        } catch {
            return .failure(.address("\(error)"))
        }
    }

    private func edit(_ body: String = "edit") -> LocalServer.Answer {
        LocalServer.Answer(
            headers: ["Persona-Key-Id": "k", "Persona-Signature": "c2ln"], body: body
        )
    }

    @Test func aRequestThatFailedOnTheWayIsRepeatedWithTheSameKey() async throws {
        let server = try LocalServer([.init(hangsUp: true), .init(status: 503), edit()])
        let answer = try await ask(server).get()
        #expect(answer.data == Data("edit".utf8))
        #expect(answer.signature == Signature(keyID: "k", der: Data("sig".utf8)))
        let keys = server.requests.map { $0.header("Idempotency-Key") }
        #expect(keys.count == 3 && Set(keys).count == 1 && keys[0]!.count == 36)
        #expect(await pauses.seconds == [0.2, 0.4])
    }

    @Test func anotherRequestHasAnotherKey() async throws {
        let server = try LocalServer([edit(), edit()])
        _ = await ask(server)
        _ = await ask(server)
        #expect(Set(server.requests.map { $0.header("Idempotency-Key") }).count == 2)
    }

    @Test func theCloudsWishToWaitIsHeardUpToFiveSeconds() async throws {
        let server = try LocalServer([
            .init(status: 429, headers: ["Retry-After": "2"]),
            .init(status: 503, headers: ["Retry-After": "3600"]), edit(),
        ])
        _ = try await ask(server).get()
        #expect(await pauses.seconds == [2, 5])
    }

    @Test func phonesThatWereRefusedTogetherComeBackApart() async throws {
        let server = try LocalServer([
            .init(status: 503, headers: ["Retry-After": "2"]), .init(status: 502), edit(),
        ])
        _ = try await ask(server, chance: 0.5).get()
        #expect(await pauses.seconds == [2.5, 0.5], "never sooner than the cloud said")
    }

    @Test func afterThreeAttemptsTheCloudIsOffline() async throws {
        let server = try LocalServer(Array(repeating: .init(status: 502), count: 4))
        guard case .failure(.offline(let reason)) = await ask(server) else {
            Issue.record("not offline")
            return
        }
        #expect(server.requests.count == 3 && reason.contains("status 502"))
    }

    @Test func aRefusalIsToldWithItsCodeAndNotRepeated() async throws {
        let problem = #"{"code": "observation.empty", "detail": "too few", "status": 422}"#
        let server = try LocalServer([.init(status: 422, body: problem), edit()])
        #expect(
            await ask(server) == .failure(.refused(code: "observation.empty", message: "too few"))
        )
        #expect(server.requests.count == 1)
    }

    @Test func anAnswerThatIsNoCloudsIsSaidToBe() async throws {
        let portal = LocalServer.Answer(body: "<html>please sign in</html>")
        let server = try LocalServer([portal, .init(status: 403, body: "<html>")])
        let cloud = try client(server.url)
        await #expect(throws: CloudError.self) { try await cloud.enrol() }
        do {
            _ = try await cloud.enrol()
        } catch {
            #expect(error.code == "http.error")
        }
        for signed in [["Persona-Key-Id": "k"], ["Persona-Signature": "c2ln"], [:]] {
            let server = try LocalServer([.init(headers: signed, body: "<html>")])
            guard case .failure(.refused("http.error", _)) = await ask(server) else {
                Issue.record("taken for an edit")
                return
            }
        }
    }

    @Test func whatIsSentIsTheObservationWithItsTypesAndToken() async throws {
        let server = try LocalServer([edit()])
        _ = await ask(server)
        let request = server.requests[0]
        #expect(request.hasPrefix("POST /v1/models/m/edits HTTP/1.1\r\n"))
        #expect(request.header("Authorization") == "Bearer t")
        #expect(request.header("Content-Type") == "application/vnd.persona.observation+safetensors")
        #expect(request.header("Accept") == "application/vnd.persona.edit+safetensors")
        #expect(request.header("Content-Length") == String(observation.encoded().count))
    }

    @Test func anExpiredTokenIsRenewedForTheSameDevice() async throws {
        let server = try LocalServer([
            .init(status: 201, body: #"{"token": "new", "expires_at": ""}"#)
        ])
        let renewed = try await client(server.url).renew(Enrolment(device: "a/b", token: "old"))
        #expect(renewed == Enrolment(device: "a/b", token: "new"))
        #expect(server.requests[0].hasPrefix("POST /v1/devices/a%2Fb/token "))
        #expect(server.requests[0].header("Authorization") == "Bearer old")
    }

    @Test func theNumberOfTheNewestKeysComesWithAnEdit() async throws {
        for (said, number) in [("7", Int64(7)), ("", 0), ("-1", 0), ("7.0", 0)] {
            var answer = edit()
            answer.headers["Persona-Keys"] = said
            #expect(try await ask(LocalServer([answer])).get().newestKeys == number)
        }
        #expect(try await ask(LocalServer([edit()])).get().newestKeys == 0)
    }

    @Test func keysAreAskedForByNumberOrTheNewestUntilThereAreNone() async throws {
        let none = #"{"code": "keys.none", "detail": "none", "status": 404}"#
        let other = #"{"code": "keys.lost", "detail": "lost", "status": 404}"#
        let server = try LocalServer([
            edit("keys"), edit("more"), .init(status: 404, body: none),
            .init(status: 404, body: other),
        ])
        let cloud = try client(server.url)
        let signature = Signature(keyID: "k", der: Data("sig".utf8))
        let newest = SignedKeys(data: Data("keys".utf8), signature: signature)
        #expect(try await cloud.keys() == newest)
        #expect(try await cloud.keys(3)?.data == Data("more".utf8))
        #expect(try await cloud.keys(4) == nil)
        await #expect(throws: CloudError.self) { try await cloud.keys(5) }
        let asked = server.requests.map { $0.split(separator: " ")[1] }
        #expect(asked == ["/v1/keys", "/v1/keys/3", "/v1/keys/4", "/v1/keys/5"])
    }

    @Test(arguments: ["", "phone", "ftp://a", "http://", "http://a:99999", "http://a?x=1"])
    func aTextThatIsNoAddressIsRefused(_ text: String) {
        #expect(throws: CloudError.address(text)) { try CloudClient(url: text) }
    }

    @Test func nobodyAtTheAddressIsOffline() async throws {
        let cloud = try client("http://127.0.0.1:9")
        do {
            _ = try await cloud.enrol()
            Issue.record("somebody answered")
        } catch {
            #expect(error.code == "cloud.offline")
        }
    }
}
