/// The device's side of the cloud's API: enrol, ask for an edit and for keys, report; retries that
/// never ask twice.
///
/// A request that failed on the way is repeated with the same idempotency key, so the cloud answers
/// with the same edit instead of making another.

import Foundation

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

public enum CloudError: CodedError, Equatable {
    /// The cloud refused: its code is stable, its message says what to do.
    case refused(code: String, message: String)
    /// The cloud cannot be reached, or is overloaded, after all attempts.
    case offline(reason: String)
    /// A text that is not the address of a cloud.
    case address(String)

    public var code: String {
        switch self {
        case .refused(let code, _): code
        case .offline: "cloud.offline"
        case .address: "cloud.address"
        }
    }

    public var message: String {
        switch self {
        case .refused(_, let message): message
        case .offline(let reason): reason
        case .address(let text):
            "'\(text)' is not the address of a cloud; expected one such as http://192.168.1.20:8080"
        }
    }
}

/// Who the cloud says that we are.
public struct Enrolment: Sendable, Equatable {
    public let device: String
    public let token: String
}

/// A model that the cloud makes edits for.
public struct CloudModel: Sendable, Equatable, Identifiable {
    public let model: String
    public let task: String
    /// sha256 of the bundle's manifest.
    public let bundle: String
    public let createdAt: String

    public var id: String { model }
}

/// Talks to one cloud. A value: it holds no state but the address.
public struct CloudClient: Sendable {
    static let attempts = 3
    static let backOff = 0.2
    static let timeout = 10.0
    static let longestWait = 5.0

    public let url: URL
    private let session: URLSession
    private let pause: @Sendable (Double) async throws -> Void
    private let chance: @Sendable () -> Double

    /// Throws `CloudError.address` where `url` is not http:// or https:// with a host.
    public init(url: String) throws(CloudError) {
        try self.init(
            url: url, chance: { .random(in: 0..<1) },
            pause: { try await Task.sleep(for: .seconds($0)) }
        )
    }

    /// `pause` waits so many seconds between attempts; `chance` draws from 0 to 1.
    init(
        url text: String, chance: @escaping @Sendable () -> Double,
        pause: @escaping @Sendable (Double) async throws -> Void
    ) throws(CloudError) {
        let trimmed = text.hasSuffix("/") ? String(text.dropLast()) : text
        guard let url = URL(string: trimmed), ["http", "https"].contains(url.scheme?.lowercased()),
            let host = url.host, !host.isEmpty, (0...65535).contains(url.port ?? 80),
            url.query == nil, url.fragment == nil
        else { throw .address(text) }
        self.url = url
        self.pause = pause
        self.chance = chance
        let configuration = URLSessionConfiguration.ephemeral
        configuration.timeoutIntervalForRequest = Self.timeout
        configuration.requestCachePolicy = .reloadIgnoringLocalCacheData
        session = URLSession(configuration: configuration)
    }

    /// Become a device.
    public func enrol() async throws(CloudError) -> Enrolment {
        let body = JSONValue.object([JSONMember("platform", .string("ios"))])
        let answer = try await send(request("POST", ["v1", "devices"], json: body))
        guard let document = try? StrictJSONReader.parse(answer.body),
            case .string(let device)? = document["device"],
            case .string(let token)? = document["token"]
        else { throw notACloud }
        return Enrolment(device: device, token: token)
    }

    /// Another token for the same device.
    public func renew(_ enrolment: Enrolment) async throws(CloudError) -> Enrolment {
        let path = ["v1", "devices", enrolment.device, "token"]
        let answer = try await send(request("POST", path, token: enrolment.token))
        guard let document = try? StrictJSONReader.parse(answer.body),
            case .string(let token)? = document["token"]
        else { throw notACloud }
        return Enrolment(device: enrolment.device, token: token)
    }

    /// Send an observation, get an edit.
    public func requestEdit(
        model: String, token: String, envelope: ObservationEnvelope
    ) async throws(CloudError) -> SignedEdit {
        var request = request("POST", ["v1", "models", model, "edits"], token: token)
        request.httpBody = envelope.encoded()
        request.setValue(WindowObservation.mediaType, forHTTPHeaderField: "Content-Type")
        request.setValue(EditFile.mediaType, forHTTPHeaderField: "Accept")
        request.setValue(UUID().uuidString, forHTTPHeaderField: "Idempotency-Key")
        let answer = try await send(request)
        guard let signature = answer.signature else { throw notACloud }
        return SignedEdit(
            data: answer.body, signature: signature,
            newestKeys: EditFile.readWhole(answer.header("Persona-Keys")) ?? 0
        )
    }

    /// A key document, the newest unless a number is named; nil where there is none.
    public func keys(_ sequence: Int64? = nil) async throws(CloudError) -> SignedKeys? {
        let path = ["v1", "keys"] + (sequence.map { [String($0)] } ?? [])
        let answer: Answer
        do {
            answer = try await send(request("GET", path))
        } catch {
            guard error.code == "keys.none" else { throw error }
            return nil
        }
        guard let signature = answer.signature else { throw notACloud }
        return SignedKeys(data: answer.body, signature: signature)
    }

    /// Report a measurement.
    public func report(_ measurement: LatencyMeasurement, token: String) async throws(CloudError) {
        _ = try await send(
            request("POST", ["v1", "measurements"], token: token, json: measurement.document())
        )
    }

    /// The models that the cloud makes edits for.
    public func models() async throws(CloudError) -> [CloudModel] {
        let answer = try await send(request("GET", ["v1", "models"]))
        guard let document = try? StrictJSONReader.parse(answer.body),
            case .array(let entries)? = document["models"]
        else { throw notACloud }
        return entries.compactMap { entry in
            guard case .string(let model)? = entry["model"],
                case .string(let task)? = entry["task"],
                case .string(let bundle)? = entry["bundle"],
                case .string(let createdAt)? = entry["created_at"]
            else { return nil }
            return CloudModel(model: model, task: task, bundle: bundle, createdAt: createdAt)
        }
    }

    /// A file of a model's bundle.
    func bundleFile(_ file: String, of model: String) async throws(CloudError) -> Data {
        let path = ["v1", "models", model, "bundle"] + file.split(separator: "/").map(String.init)
        return try await send(request("GET", path)).body
    }

    private var notACloud: CloudError {
        .refused(
            code: "http.error",
            message: "\(url.absoluteString) did not answer as a Persona cloud does; check the "
                + "address, and whether the network wants a sign-in"
        )
    }

    private func request(
        _ method: String, _ path: [String], token: String? = nil, json: JSONValue? = nil
    ) -> URLRequest {
        let plain = CharacterSet(
            charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
        )
        let encoded = path.map { $0.addingPercentEncoding(withAllowedCharacters: plain) ?? "" }
        let address = url.absoluteString + "/" + encoded.joined(separator: "/")
        var request = URLRequest(url: URL(string: address)!)
        request.httpMethod = method
        if let token {
            request.setValue("Bearer \(token)", forHTTPHeaderField: "Authorization")
        }
        if let json {
            request.httpBody = json.encoded()
            request.setValue("application/json", forHTTPHeaderField: "Content-Type")
        }
        return request
    }

    private struct Answer {
        let status: Int
        let body: Data
        let headers: HTTPURLResponse

        func header(_ name: String) -> String {
            headers.value(forHTTPHeaderField: name) ?? ""
        }

        /// nil where the answer is not signed, so not a cloud's.
        var signature: Signature? {
            let (keyID, signature) = (header("Persona-Key-Id"), header("Persona-Signature"))
            guard !keyID.isEmpty, !signature.isEmpty else { return nil }
            return Signature(keyID: keyID, base64: signature)
        }

        /// Seconds, where the header says so in plain digits.
        var retryAfter: Double {
            let text = header("Retry-After")
            return text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? Double(text) ?? 0 : 0
        }
    }

    /// Send, and again after a pause where the network or an overloaded cloud was at fault.
    ///
    /// The pause is up to half longer than it must be, by chance: phones that were refused together
    /// would else come back together.
    private func send(_ request: URLRequest) async throws(CloudError) -> Answer {
        var reason = ""
        for attempt in 0..<Self.attempts {
            var wait = Self.backOff * Double(1 << attempt)
            do {
                let answer = try await once(request)
                if 200..<300 ~= answer.status { return answer }
                guard [429, 502, 503, 504].contains(answer.status) else { throw refusal(answer) }
                reason = "status \(answer.status)"
                wait = max(wait, min(answer.retryAfter, Self.longestWait))
            } catch let error as CloudError {
                throw error
            } catch is CancellationError {
                throw .offline(reason: "the request was cancelled")
            } catch {
                reason = error.localizedDescription
            }
            if attempt < Self.attempts - 1 {
                do {
                    try await pause(wait * (1 + chance() / 2))
                } catch {
                    throw .offline(reason: "the request was cancelled")
                }
            }
        }
        throw .offline(
            reason: "\(url.absoluteString) did not answer after \(Self.attempts) attempts "
                + "(\(reason)); check that `persona serve` runs there and that this device is in "
                + "the same network"
        )
    }

    private func once(_ request: URLRequest) async throws -> Answer {
        let (body, response) = try await session.data(for: request)
        guard let response = response as? HTTPURLResponse else { throw notACloud }
        return Answer(status: response.statusCode, body: body, headers: response)
    }

    private func refusal(_ answer: Answer) -> CloudError {
        guard let problem = try? StrictJSONReader.parse(answer.body),
            case .string(let code)? = problem["code"],
            case .string(let detail)? = problem["detail"]
        else {
            return .refused(
                code: "http.error", message: "status \(answer.status) without an explanation"
            )
        }
        return .refused(code: code, message: detail)
    }
}
