import Foundation

@testable import PersonaKit

/// A phone whose app pins one publisher and whose bundle names one edit key, in a folder of its own,
/// and what its cloud answers over HTTP.
struct PhoneAndCloud {
    static let start = Timestamp.parse("2026-06-01T12:00:00Z")!
    static let window = WindowObservation.items([1, 2, 3, 4])
    static let digest = sha256(Data("a bundle".utf8))

    let publisher = SigningKey()
    let editKey = SigningKey()
    let place: TemporaryFolder

    init() throws {
        place = try TemporaryFolder()
    }

    /// The phone, started again.
    func phone(at now: Date = Self.start) throws -> LiveModel {
        try phone { now }
    }

    func phone(clock now: @escaping @Sendable () -> Date) throws -> LiveModel {
        let bundle = try LinearEngine.bundle(digest: Self.digest, editKeys: editKey.ring)
        return try LiveModel(
            bundle: bundle, engine: LinearEngine(), folder: place.url, pinned: publisher.ring,
            now: now
        )
    }

    /// The phone asks about `window`: `ok`, or the code that says why there is no new edit.
    func outcome(_ phone: LiveModel, _ server: LocalServer) async throws -> String {
        let cloud = try CloudClient(url: server.url)
        switch await phone.personalise(with: cloud, observation: Self.window).outcome {
        case .newEdit: return "ok"
        case .kept(let error): return error.code
        }
    }

    /// An edit for a week from `start`, around prototype 0: (1 + 1 + 0)·1 + (1 + 0 + 1)·1 = 4.
    static func edit(_ sequence: Int) -> Data {
        SafetensorsContainer(
            metadata: [
                "format": EditFile.format, "model": "sensor-net", "bundle": digest,
                "device": "phone", "sequence": String(sequence), "prototype": "0",
                "issued_at": "2026-06-01T12:00:00Z", "expires_at": "2026-06-08T12:00:00Z",
            ],
            tensors: [
                ("head.weight", StoredTensor(FloatTensor(shape: [1, 2], values: [0, 1]))),
                ("probe.expected", StoredTensor(FloatTensor(shape: [1, 1], values: [4]))),
            ]
        ).encoded()
    }
}

extension LocalServer.Answer {
    static let enrolment = enrolment(as: "phone")

    static func enrolment(as device: String) -> Self {
        Self(status: 201, body: #"{"device": "\#(device)", "token": "t"}"#)
    }

    static func refusal(_ status: Int, _ code: String) -> Self {
        Self(status: status, body: #"{"code": "\#(code)", "detail": "no", "status": \#(status)}"#)
    }

    static let noKeys = refusal(404, "keys.none")

    /// `keys`: the number of the cloud's newest key document.
    static func signed(_ data: Data, _ key: SigningKey, keys: Int = 0) -> Self {
        let signature = key.signature(over: data)
        return Self(
            headers: [
                "Persona-Key-Id": signature.keyID,
                "Persona-Signature": Base64.encode(signature.der), "Persona-Keys": String(keys),
            ],
            bytes: data
        )
    }

    static func edit(_ sequence: Int, _ key: SigningKey, keys: Int = 0) -> Self {
        signed(PhoneAndCloud.edit(sequence), key, keys: keys)
    }
}
