// A whole digit model in memory, for view models over a real LiveModel: one dense slot `head` on the
// mean pixel of each half of an 8 × 8 image.
//
//     score[c] = weight[c] · (left, right) + bias[c]

import Foundation

@testable import PersonaDemoLogic
@testable import PersonaKit

enum DigitModel {
    static let classes = 10

    /// The base says 0; the one prototype makes it say 7.
    static let baseBias = peak(at: 0), prototypeBias = peak(at: 7, height: 3)

    static func bundle(target: String = "coreml", folder: URL) -> ModelBundle {
        let base = tensors(bias: baseBias)
        let prototype = tensors(bias: prototypeBias)
        let edit = tensors(bias: peak(at: 3, height: 5))
        let input = ModelInput.float32(FloatTensor(shape: [1, 1, 8, 8], values: image(0.25)))
        let features = DigitEngine.halves(input)
        return ModelBundle(
            folder: folder, manifest: manifest(target), digest: String(repeating: "a", count: 64),
            signingKey: signingKey, signer: .enclosed, base: base,
            prototypes: Prototypes(
                changes: [prototype], mean: .zeros([width]),
                deviation: FloatTensor(shape: [width], values: [Float](repeating: 1, count: width)),
                weight: .zeros([1, width]), bias: .zeros([1])
            ),
            golden: Golden(
                inputs: [[input]],
                base: [output(baseBias)],
                prototypes: [[output(sum(baseBias, prototypeBias))]],
                edit: edit,
                edited: [output(sum(baseBias, peak(at: 3, height: 5)))],
                features: [features], posterior: [DigitEngine.uniform]
            ),
            editKeys: try! KeyRing(publicKeys: [])
        )
    }

    /// 5a194e0635a57834, one of the corpus's.
    static let signingKey = try! P256PublicKey(
        der: Base64.decode(
            """
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEV+thomU774uT2013shLek8b5Oc\
            G3iByRbmh3CyudNifsf6uRfTLAL7XFP/AE3cVfVyrEAfb+zn0CfpHn0QMcwg==
            """
        )!
    )

    static func image(_ level: Float) -> [Float] { [Float](repeating: level, count: 64) }

    private static let width = 2 * 2 + 2 * classes + classes * 2

    private static func peak(at label: Int, height: Float = 1) -> [Float] {
        (0..<classes).map { $0 == label ? height : 0 }
    }

    private static func sum(_ a: [Float], _ b: [Float]) -> [Float] { zip(a, b).map(+) }

    private static func output(_ values: [Float]) -> FloatTensor {
        FloatTensor(shape: [1, classes], values: values)
    }

    private static func tensors(bias: [Float]) -> SlotTensors {
        [
            "head.weight": .zeros([classes, 2]),
            "head.bias": FloatTensor(shape: [classes], values: bias),
        ]
    }

    private static func manifest(_ target: String) -> Manifest {
        let files = ["base", "prototypes", "golden", "program", "observe"].map { name in
            #""\#(name)": {"size": 0, "sha256": "\#(String(repeating: "0", count: 64))"}"#
        }
        let mass = [String](repeating: "0.1", count: classes).joined(separator: ", ")
        let text = """
            {"format": "persona.bundle/1", "model": "digits", "task": "classification",
             "created_at": "2026-05-01T00:00:00Z",
             "inputs": [{"name": "image", "dtype": "float32", "shape": [1, 1, 8, 8]}],
             "outputs": [{"name": "output", "dtype": "float32", "shape": [1, \(classes)]}],
             "slots": [{"name": "head", "kind": "dense", "out": \(classes), "in": 2, "rank": 0,
                        "bias": true, "bound": 10, "bias_bound": 10}],
             "observation": {"kind": "pooled", "features": 2, "classes": \(classes),
                             "min_count": 3, "max_count": 5, "training_mass": [\(mass)]},
             "prototype_count": 1, "base": "base", "prototypes": "prototypes", "golden": "golden",
             "programs": [{"target": "\(target)", "precision": "fp32", "path": "program",
                "method": "main", "observe_path": "observe", "observe_method": "main",
                "feeds": [{"tensor": "head.weight", "index": null, "input": "head_weight",
                           "carries": "effective", "shape": [\(classes), 2]},
                          {"tensor": "head.bias", "index": null, "input": "head_bias",
                           "carries": "effective", "shape": [\(classes)]}],
                "tolerance": 1e-5, "verified": "interpreted", "delegation": {}}],
             "edit_keys": [], "max_edit_bytes": 4096, "max_observation_bytes": 65536,
             "files": {\(files.joined(separator: ", "))}, "made_by": {}}
            """
        return try! Manifest(decoding: Data(text.utf8))
    }
}

/// Runs the digit model in Swift.
final class DigitEngine: InferenceEngine {
    let program: Program
    let placement = Placement(.unknown("a test"))
    private let base: SlotTensors
    private var bound: SlotTensors
    private let offset: Float

    /// offset: added to every score; other than 0 the golden outputs are missed.
    init(_ bundle: ModelBundle, offset: Float = 0) {
        program = bundle.manifest.programs[0]
        base = bundle.base
        bound = bundle.base
        self.offset = offset
    }

    func bind(_ slots: SlotValues) { bound = slots.effective }
    func predict(_ inputs: [ModelInput]) -> FloatTensor { scores(inputs[0], bound) }
    func predictBase(_ inputs: [ModelInput]) -> FloatTensor { scores(inputs[0], base) }

    func observe(_ inputs: [ModelInput]) -> (features: FloatTensor, posterior: FloatTensor) {
        (Self.halves(inputs[0]), Self.uniform)
    }

    static let uniform = FloatTensor(
        shape: [1, DigitModel.classes], values: [Float](repeating: 0.1, count: DigitModel.classes)
    )

    static func halves(_ input: ModelInput) -> FloatTensor {
        guard case .float32(let image) = input else { fatalError("images are binary32") }
        let columns = image.values.enumerated()
        let left = columns.filter { $0.offset % 8 < 4 }.map(\.element).reduce(0, +) / 32
        let right = columns.filter { $0.offset % 8 >= 4 }.map(\.element).reduce(0, +) / 32
        return FloatTensor(shape: [1, 2], values: [left, right])
    }

    private func scores(_ input: ModelInput, _ slots: SlotTensors) -> FloatTensor {
        let halves = Self.halves(input).values
        let weight = slots["head.weight"]!.values
        let bias = slots["head.bias"]!.values
        let values = bias.indices.map { c in
            weight[2 * c] * halves[0] + weight[2 * c + 1] * halves[1] + bias[c] + offset
        }
        return FloatTensor(shape: [1, bias.count], values: values)
    }
}

/// Loads the engine, or fails to.
struct DigitLoader: EngineLoader {
    var offset: Float = 0

    func load(_ bundle: ModelBundle) async throws -> sending any InferenceEngine {
        DigitEngine(bundle, offset: offset)
    }

    static func factory(_ label: String, offset: Float = 0) -> EngineFactory {
        EngineFactory(
            label: label, target: "test", precision: .fp32, key: label,
            loader: DigitLoader(offset: offset)
        )
    }
}

/// A folder of its own for each test, gone when it is over.
final class Scratch: Sendable {
    let url = FileManager.default.temporaryDirectory
        .appending(path: "persona-\(UUID().uuidString)")

    deinit { try? FileManager.default.removeItem(at: url) }

    func platform(_ engines: [EngineFactory], embedded: URL? = nil) -> Platform {
        Platform(
            folder: url, documents: url.appending(path: "documents"), embedded: embedded,
            engines: { _ in engines },
            conditions: DeviceConditions(
                thermal: { .nominal }, lowPower: { false }, memoryBytes: { 1 << 20 }
            )
        )
    }
}
