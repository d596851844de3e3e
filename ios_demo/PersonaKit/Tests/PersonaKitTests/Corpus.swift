// The shared corpus, tests/conformance: what every reader of docs/edit-format.md must say.

import Foundation
import Testing

@testable import PersonaKit

struct Corpus {
    static let folder = URL(filePath: #filePath)
        .appending(path: "../../../../../tests/conformance").standardizedFileURL

    static func data(_ path: String) throws -> Data {
        try Data(contentsOf: folder.appending(path: path))
    }

    static func json(_ path: String) throws -> JSONValue {
        try StrictJSONReader.parse(data(path))
    }

    static func container(_ path: String) throws -> SafetensorsContainer {
        try SafetensorsContainer(
            decoding: data(path), longestHeader: SafetensorsContainer.longestBundleHeader
        )
    }

    static func floats(_ path: String) throws -> SlotTensors {
        var tensors: SlotTensors = [:]
        for (name, tensor) in try container(path).tensors {
            tensors[name.text] = tensor.floats
        }
        return tensors
    }

    static func keys(_ name: String) throws -> KeyRing {
        let entries = try json("keys.json").list(name)
        return try KeyRing(publicKeys: entries.map { Data(base64Encoded: $0.text("public_key"))! })
    }

    static func complete() throws -> Manifest {
        try Manifest(decoding: data("bundles/complete/manifest.json"))
    }
}

extension JSONValue {
    func text(_ key: String) -> String {
        guard case .string(let text)? = self[key] else { fatalError("\(key) is no string") }
        return text
    }

    func number(_ key: String) -> JSONNumber {
        guard case .number(let number)? = self[key] else { fatalError("\(key) is no number") }
        return number
    }

    func flag(_ key: String) -> Bool {
        guard case .bool(let flag)? = self[key] else { fatalError("\(key) is no boolean") }
        return flag
    }

    func list(_ key: String) -> [JSONValue] {
        guard case .array(let list)? = self[key] else { fatalError("\(key) is no list") }
        return list
    }

    var list: [JSONValue] {
        guard case .array(let list) = self else { fatalError("no list") }
        return list
    }
}

/// `ok`, or the code with which `read` refuses.
func verdict(_ read: () throws -> Void) throws -> String {
    do {
        try read()
        return "ok"
    } catch let error as FormatError {
        return error.code
    }
}

/// Equal bit for bit, where `==` would take 0 for −0.
func bits(_ tensor: FloatTensor?) -> [UInt32]? {
    tensor?.values.map(\.bitPattern)
}
