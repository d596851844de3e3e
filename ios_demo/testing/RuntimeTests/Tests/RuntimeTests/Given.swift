import EngineOnRuntime
import Foundation
import PersonaKit
import Testing

/// What `check.py` gives: samples that were just exported, and a `persona serve` for each.
struct Sample: Sendable, CustomTestStringConvertible {
    let name: String
    let folder: URL
    let cloud: String

    static let all = environment("PERSONA_CLOUDS").split(separator: ",").map { entry in
        let parts = entry.split(separator: "=", maxSplits: 1).map(String.init)
        return Sample(
            name: parts[0],
            folder: URL(filePath: environment("PERSONA_SAMPLES")).appending(path: parts[0]),
            cloud: parts[1]
        )
    }

    static func environment(_ name: String) -> String {
        guard let value = ProcessInfo.processInfo.environment[name] else {
            fatalError("\(name) is not set: run ios_demo/testing/check.py")
        }
        return value
    }

    var testDescription: String { name }

    func bundle() throws -> ModelBundle {
        try ModelBundle.open(at: folder.appending(path: "bundle"), trusting: nil)
    }

    func client() throws -> CloudClient { try CloudClient(url: cloud) }

    /// The window of an unseen device: for pooled observations samples, else item ids.
    func observation(_ live: LiveModel, user: Int = 0) async throws -> WindowObservation {
        let file = try SafetensorsContainer(
            decoding: Data(contentsOf: folder.appending(path: "windows.safetensors"))
        )
        let columns = (0..<file.tensors.count).compactMap {
            file.tensors[ExactName("\(user).\($0)")]
        }
        guard case .pooled = live.bundle.manifest.observation else {
            return try await live.observe(items: columns[0].integers!.values)
        }
        let images = columns[0].floats!
        let size = images.values.count / images.shape[0]
        let samples = (0..<images.shape[0]).map { index -> [ModelInput] in
            let values = Array(images.values[index * size..<(index + 1) * size])
            return [.float32(FloatTensor(shape: [1] + images.shape.dropFirst(), values: values))]
        }
        return try await live.observe(samples)
    }

    func engine(_ bundle: ModelBundle) throws -> sending ExecuTorchEngine {
        let program = bundle.manifest.program(target: "executorch-xnnpack", precision: .fp32)!
        return try ExecuTorchEngine(
            bundle: bundle, program: program, scratch: FileManager.default.temporaryDirectory
        )
    }

    func live(
        in place: TemporaryFolder, now: @escaping @Sendable () -> Date = { Date() }
    ) throws -> LiveModel {
        let bundle = try bundle()
        return try LiveModel(
            bundle: bundle, engine: engine(bundle), folder: place.device, now: now
        )
    }
}

/// A folder that goes when the test does.
final class TemporaryFolder: Sendable {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appending(path: "persona-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit {
        try? FileManager.default.removeItem(at: url)
    }

    var device: URL { url.appending(path: "device") }

    /// The edit that is stored there.
    func storedEdit() throws -> URL {
        let names = try FileManager.default.contentsOfDirectory(atPath: device.path)
        return device.appending(
            path: names.first { $0.hasSuffix(".safetensors") && $0.hasPrefix("edit") }!)
    }
}

/// Relative to max(1, largest magnitude), as tolerances are.
func distance(_ output: FloatTensor, _ expected: FloatTensor) -> Float {
    guard output.shape == expected.shape else { return .infinity }
    let largest = zip(output.values, expected.values).map { abs($0 - $1) }.max() ?? 0
    return largest / max(1, expected.largestMagnitude)
}

func bits(_ tensor: FloatTensor) -> [UInt32] { tensor.values.map(\.bitPattern) }

func refusal(_ work: () async throws -> Void) async -> String {
    do {
        try await work()
        return "ok"
    } catch let error as any CodedError {
        return error.code
    } catch {
        return "\(error)"
    }
}
