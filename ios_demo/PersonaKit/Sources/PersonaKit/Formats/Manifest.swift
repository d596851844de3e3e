/// The bundle manifest `persona.bundle/1`: what an app ships, file by file, and how to use it.
///
/// Specified in docs/edit-format.md, "Manifest". Reading checks all of it, so that a manifest that
/// exists is sound.

import Foundation

public enum ModelTask: String, Sendable, CaseIterable {
    case classification
    case ranking
}

public enum PortType: String, Sendable, CaseIterable {
    case float32
    case int64
}

/// Of a program's backbone; slots are always float.
public enum Precision: String, Sendable, CaseIterable {
    case fp32
    case fp16
    case int8
}

/// What was done with a program where it was exported.
public enum Verified: String, Sendable, CaseIterable {
    case executed
    case interpreted
    case lowered
}

/// What a feed carries: base + prototype + edit, or prototype + edit.
public enum Carries: String, Sendable, CaseIterable {
    case effective
    case change
}

/// A dimension that the caller chooses.
public struct FreeDimension: Sendable, Equatable {
    public let name: String
    public let min: Int
    public let max: Int
}

/// An input or output of a program. A dimension that the caller chooses is −1 in `shape`, and the
/// next of `free` says its limits.
public struct ModelPort: Sendable, Equatable {
    public let name: String
    public let dtype: PortType
    public let shape: [Int]
    public let free: [FreeDimension]
}

/// The bytes of a head's file that hold one slot tensor: row by row, little-endian binary32.
public struct Patch: Sendable, Equatable {
    public let offset: Int
    public let length: Int
}

/// How one tensor of a slot reaches a program: by index, by name or both, or by a patch.
public struct Feed: Sendable, Equatable {
    /// `SLOT.SUFFIX`.
    public let tensor: String
    public let index: Int?
    public let input: String?
    public let carries: Carries
    public let shape: [Int]
    public let patch: Patch?
}

/// The second half of a program in two: it takes what the first half gives, in order.
public struct Head: Sendable, Equatable {
    public let path: String
    public let method: String
}

/// A program for one target in one precision.
public struct Program: Sendable, Equatable {
    /// Runtime and processor.
    public let target: String
    public let precision: Precision
    public let path: String
    public let method: String
    /// The program that computes features; nil where item ids are observed.
    public let observePath: String?
    public let observeMethod: String?
    public let feeds: [Feed]
    /// Largest difference from the golden outputs, relative to max(1, largest magnitude).
    public let tolerance: Double
    public let verified: Verified
    public let delegation: JSONValue
    public let head: Head?
    public let slotFeed: JSONValue
}

/// Size and sha256 of one file of the bundle.
public struct BundleFile: Sendable, Equatable {
    public let size: Int
    public let sha256: String

    public init(size: Int, sha256: String) {
        self.size = size
        self.sha256 = sha256
    }
}

/// A public key that may sign edits.
public struct EditKey: Sendable, Equatable {
    public let id: String
    /// SubjectPublicKeyInfo in DER.
    public let publicKey: Data
}

public struct Manifest: Sendable, Equatable {
    public static let format = "persona.bundle/1"
    public static let fileName = "manifest.json"
    public static let signatureName = "manifest.sig"

    public let model: String
    public let task: ModelTask
    public let createdAt: String
    public let inputs: [ModelPort]
    public let outputs: [ModelPort]
    public let slots: [Slot]
    public let observation: ObservationSpec
    public let prototypeCount: Int
    public let base: String
    public let prototypes: String
    public let golden: String
    public let programs: [Program]
    public let editKeys: [EditKey]
    public let maxEditBytes: Int
    public let maxObservationBytes: Int
    public let files: [String: BundleFile]
    /// Configuration, versions, data fingerprint, metrics.
    public let madeBy: JSONValue
}

extension Manifest {
    /// Check the signature over `manifest.json`, then read it.
    public init(
        verifying data: Data, signature: Signature, keys: KeyRing
    ) throws(FormatError) {
        guard keys.knows(signature.keyID) else {
            throw FormatError(
                .bundleUnknownKey,
                "the bundle is signed with key '\(signature.keyID)', which is not trusted here; "
                    + "pin its publisher's key, or take a bundle of a publisher that is"
            )
        }
        guard keys.verifies(signature, over: data) else {
            throw FormatError(
                .bundleBadSignature,
                "the signature by key '\(signature.keyID)' does not match \(Self.fileName); "
                    + "copy the bundle again"
            )
        }
        try self.init(decoding: data)
    }

    /// Read `manifest.json`. Throws `bundle.manifest_invalid`, and the message names the field.
    public init(decoding data: Data) throws(FormatError) {
        do {
            let document = try StrictJSONReader.parse(data)
            if case .string(let found)? = document["format"], !found.isExactly(Self.format) {
                throw SchemaError(
                    reason: "its format is '\(found)', and this version reads '\(Self.format)'; "
                        + "export the bundle again, or use a version that reads it"
                )
            }
            try self.init(JSONField(value: document, path: "manifest"))
        } catch let error as SchemaError {
            throw FormatError(.bundleManifestInvalid, "\(Self.fileName): \(error.reason)")
        } catch let error as StrictJSONError {
            throw FormatError(.bundleManifestInvalid, "\(Self.fileName): \(error.reason)")
        } catch {
            preconditionFailure("readers throw nothing else: \(error)")
        }
    }

    /// The first program for a target, in this precision where one is asked for.
    public func program(target: String, precision: Precision? = nil) -> Program? {
        programs.first {
            $0.target == target && (precision == nil || $0.precision == precision)
        }
    }

    private init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object([
            "format", "model", "task", "created_at", "inputs", "outputs", "slots", "observation",
            "prototype_count", "base", "prototypes", "golden", "programs", "edit_keys",
            "max_edit_bytes", "max_observation_bytes", "files", "made_by",
        ])
        guard try object["format"].string().isExactly(Self.format) else {
            throw object["format"].fault("expected '\(Self.format)'")
        }
        model = try object["model"].name()
        task = try object["task"].choice(ModelTask.self)
        createdAt = try object["created_at"].string()
        inputs = try object["inputs"].read(ModelPort.init)
        outputs = try object["outputs"].read(ModelPort.init)
        slots = try object["slots"].read(Slot.init)
        observation = try ObservationSpec(object["observation"])
        prototypeCount = try object["prototype_count"].whole(from: 0)
        files = try Self.readFiles(object["files"])
        base = try object["base"].file(of: files)
        prototypes = try object["prototypes"].file(of: files)
        golden = try object["golden"].file(of: files)
        programs = try object["programs"].read(Program.init)
        editKeys = try object["edit_keys"].read(EditKey.init)
        maxEditBytes = try object["max_edit_bytes"].whole(from: 1)
        maxObservationBytes = try object["max_observation_bytes"].whole(from: 1)
        _ = try object["made_by"].members()
        madeBy = object["made_by"].value

        let ports = (inputs + outputs).map { ExactName($0.name) }
        guard !inputs.isEmpty, !outputs.isEmpty, Set(ports).count == ports.count else {
            throw object["inputs"].fault("inputs and outputs must be 1 or more, all named apart")
        }
        guard !slots.isEmpty, Set(slots.map(\.name)).count == slots.count else {
            throw object["slots"].fault("slots must be 1 or more with different names")
        }
        let kinds = programs.map { ExactName("\($0.target) \($0.precision.rawValue)") }
        guard Set(kinds).count == kinds.count else {
            throw object["programs"].fault("programs must differ in target or precision")
        }
        for (program, field) in zip(programs, try object["programs"].list()) {
            try check(program, field)
        }
    }

    private static func readFiles(_ field: JSONField) throws(SchemaError) -> [String: BundleFile] {
        var files: [String: BundleFile] = [:]
        for (key, field) in try field.members() {
            let parts = key.text.utf8.split(
                separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
            guard parts.allSatisfy({ JSONField.isName($0) }), key.text != fileName,
                key.text != signatureName
            else { throw field.fault("must be a plain path inside the bundle") }
            let object = try field.object(["size", "sha256"])
            let digest = try object["sha256"].string()
            guard EditFile.isDigest(digest) else {
                throw object["sha256"].fault("expected a sha256 in lower-case hex")
            }
            files[key.text] = BundleFile(size: try object["size"].whole(from: 0), sha256: digest)
        }
        return files
    }

    /// What a program says of files and slots.
    private func check(_ program: Program, _ field: JSONField) throws(SchemaError) {
        for path in [program.path, program.observePath].compactMap({ $0 }) {
            let folder = Array("\(path)/".utf8)
            guard files.keys.contains(where: { $0.isExactly(path) || $0.utf8.starts(with: folder) })
            else { throw field.fault("'\(path)' is not among the files") }
        }
        let headFile = try program.head.map { head throws(SchemaError) in
            guard let file = files.first(where: { $0.key.isExactly(head.path) }) else {
                throw field.fault("'\(head.path)' is not among the files")
            }
            return file.value
        }
        var missing: [ExactName: SlotTensor] = [:]
        for tensor in slots.flatMap(\.tensors) {
            missing[ExactName(tensor.name)] = tensor
        }
        for feed in program.feeds {
            guard let tensor = missing.removeValue(forKey: ExactName(feed.tensor)) else {
                throw field.fault("feeds '\(feed.tensor)', which is of no slot, or twice")
            }
            guard wholeProduct(feed.shape) == wholeProduct(tensor.feedShape) else {
                throw field.fault(
                    "feeds '\(feed.tensor)' with shape \(feed.shape); the slot has "
                        + "\(tensor.feedShape)"
                )
            }
            if let patch = feed.patch, let size = headFile?.size, patch.offset + patch.length > size
            {
                throw field.fault(
                    "patches '\(feed.tensor)' up to byte \(patch.offset + patch.length) of "
                        + "\(size) bytes"
                )
            }
        }
        if let name = missing.keys.min() {
            throw field.fault("does not feed '\(name)'")
        }
    }
}

/// The product of sizes; nil above 2⁵³ − 1.
func wholeProduct(_ sizes: [Int]) -> Int? {
    var product = 1
    for size in sizes {
        let (result, overflow) = product.multipliedReportingOverflow(by: size)
        guard !overflow, result <= largestWhole else { return nil }
        product = result
    }
    return product
}

extension JSONField {
    /// A list of 0 or more, each read by `element`.
    func read<Element>(
        _ element: (JSONField) throws(SchemaError) -> Element
    ) throws(SchemaError) -> [Element] {
        var elements: [Element] = []
        for field in try list() {
            elements.append(try element(field))
        }
        return elements
    }

    /// Letters, digits, `_`, `.` and `-`; begins with a letter, digit or `_`.
    fileprivate static func isName(_ bytes: some Sequence<UInt8>) -> Bool {
        var isFirst = true
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
                break
            case UInt8(ascii: "."), UInt8(ascii: "-"):
                if isFirst { return false }
            default:
                return false
            }
            isFirst = false
        }
        return !isFirst
    }

    fileprivate func name() throws(SchemaError) -> String {
        let text = try string()
        guard Self.isName(text.utf8) else {
            throw fault("'\(text)' must be letters, digits, '_', '.' and '-'")
        }
        return text
    }

    fileprivate func file(of files: [String: BundleFile]) throws(SchemaError) -> String {
        let text = try string()
        guard files.keys.contains(where: { $0.isExactly(text) }) else {
            throw fault("'\(text)' is not among the files")
        }
        return text
    }

    fileprivate func sizes() throws(SchemaError) -> [Int] {
        var sizes: [Int] = []
        for field in try list() {
            sizes.append(try field.whole())
        }
        return sizes
    }
}

extension FreeDimension {
    fileprivate init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object(["name", "min", "max"])
        name = try object["name"].string()
        min = try object["min"].whole()
        max = try object["max"].whole()
    }
}

extension ModelPort {
    fileprivate init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object(["name", "dtype", "shape"], optional: ["free"])
        name = try object["name"].string()
        dtype = try object["dtype"].choice(PortType.self)
        shape = try object["shape"].sizes()
        guard shape.allSatisfy({ $0 >= 1 || $0 == -1 }), wholeProduct(shape.map(abs)) != nil else {
            throw object["shape"].fault("sizes must be 1 or more, or -1, got \(shape)")
        }
        free = try object.optionalList("free")?.read(FreeDimension.init) ?? []
        guard shape.filter({ $0 == -1 }).count == free.count else {
            throw field.fault("shape \(shape) needs as many free dimensions as it has -1")
        }
    }
}

extension Slot {
    init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object([
            "name", "kind", "out", "in", "rank", "bias", "bound", "bias_bound",
        ])
        name = try object["name"].name()
        guard name != "probe", !name.hasPrefix("probe.") else {
            throw object["name"].fault("'\(name)' cannot name a slot")
        }
        kind = try object["kind"].choice(SlotKind.self)
        out = try object["out"].whole(from: 1)
        `in` = try object["in"].whole(from: kind == .affine ? 0 : 1)
        rank = try object["rank"].whole(from: kind == .lowRank ? 1 : 0)
        bias = try object["bias"].bool()
        bound = try object["bound"].real()
        biasBound = try object["bias_bound"].real()
        guard kind != .affine || `in` == 0 else { throw object["in"].fault("affine: must be 0") }
        guard kind == .lowRank || rank == 0 else {
            throw object["rank"].fault("must be 0 unless low-rank")
        }
        guard kind != .affine || !bias else {
            throw object["bias"].fault("an affine slot has a shift and no bias")
        }
        let largest = Double(Float.greatestFiniteMagnitude)
        guard bound > 0, bound <= largest else {
            throw object["bound"].fault("must be above 0 and fit binary32")
        }
        guard biasBound >= 0, biasBound <= largest else {
            throw object["bias_bound"].fault("must be 0 or more and fit binary32")
        }
        guard wholeProduct([8, out, max(`in`, 1)]) != nil,
            wholeProduct([8, max(rank, 1), max(`in`, out)]) != nil
        else { throw field.fault("a slot of this size cannot be held") }
    }
}

extension Feed {
    init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object(
            ["tensor", "index", "input", "carries", "shape"], optional: ["patch"]
        )
        tensor = try object["tensor"].string()
        index = try object.optional("index")?.whole(from: 0)
        input = try object.optional("input")?.string()
        carries = try object["carries"].choice(Carries.self)
        shape = try object["shape"].sizes()
        patch = try object.optional("patch").map(Patch.init)
        guard (index != nil || input != nil) == (patch == nil) else {
            throw field.fault("needs the index or the name of an input, or else a patch")
        }
        guard shape.allSatisfy({ $0 >= 1 }) else {
            throw object["shape"].fault("sizes must be 1 or more, got \(shape)")
        }
        if let patch {
            guard carries == .effective else {
                throw field.fault("a patch carries what is effective")
            }
            guard wholeProduct([4] + shape) == patch.length else {
                throw field.fault(
                    "shape \(shape) does not have the \(patch.length) bytes of the patch")
            }
        }
    }
}

extension Patch {
    fileprivate init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object(["offset", "length", "dtype"])
        offset = try object["offset"].whole(from: 0)
        length = try object["length"].whole(from: 1)
        guard try object["dtype"].string().isExactly("F32") else {
            throw object["dtype"].fault("expected 'F32'")
        }
    }
}

extension Head {
    fileprivate init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object(["path", "method"])
        path = try object["path"].string()
        method = try object["method"].string()
    }
}

extension Program {
    init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object(
            [
                "target", "precision", "path", "method", "observe_path", "observe_method", "feeds",
                "tolerance", "verified", "delegation",
            ],
            optional: ["head", "slot_feed"]
        )
        target = try object["target"].string()
        precision = try object["precision"].choice(Precision.self)
        path = try object["path"].string()
        method = try object["method"].string()
        observePath = try object.optional("observe_path")?.string()
        observeMethod = try object.optional("observe_method")?.string()
        feeds = try object["feeds"].read(Feed.init)
        tolerance = try object["tolerance"].real()
        verified = try object["verified"].choice(Verified.self)
        _ = try object["delegation"].members()
        delegation = object["delegation"].value
        head = try object.optional("head").map(Head.init)
        slotFeed = try object.object("slot_feed")

        let inputs = feeds.compactMap { $0.input.map { ExactName($0) } }
        let indices = feeds.compactMap(\.index)
        guard Set(inputs).count == inputs.count, Set(indices).count == indices.count else {
            throw object["feeds"].fault("feeds name an index or an input more than once")
        }
        guard Set(feeds.map(\.carries)).count <= 1 else {
            throw object["feeds"].fault("feeds must all carry 'effective', or all 'change'")
        }
        let patches = feeds.compactMap(\.patch).sorted { $0.offset < $1.offset }
        guard patches.isEmpty == (head == nil) else {
            throw field.fault("patches and a head must come together")
        }
        if let head, [path, observePath].contains(where: { $0?.isExactly(head.path) == true }) {
            throw field.fault("the head must be a file of its own, not '\(head.path)'")
        }
        for (before, after) in zip(patches, patches.dropFirst())
        where before.offset + before.length > after.offset {
            throw field.fault("two patches share the byte \(after.offset)")
        }
    }
}

extension JSONObject {
    /// A list that may be left out, but not null.
    fileprivate func optionalList(_ key: String) throws(SchemaError) -> JSONField? {
        guard let field = given(key) else { return nil }
        _ = try field.list()
        return field
    }

    /// An object that may be left out, but not null.
    fileprivate func object(_ key: String) throws(SchemaError) -> JSONValue {
        guard let field = given(key) else { return .object([]) }
        _ = try field.members()
        return field.value
    }
}

extension EditKey {
    fileprivate init(_ field: JSONField) throws(SchemaError) {
        let object = try field.object(["id", "public_key"])
        id = try object["id"].string()
        guard let key = Base64.decode(try object["public_key"].string()) else {
            throw object["public_key"].fault("expected canonical base64")
        }
        guard KeyRing.id(of: key).isExactly(id) else {
            throw object["id"].fault("the id of this public_key is '\(KeyRing.id(of: key))'")
        }
        publicKey = key
    }
}
