/// Typed values out of JSON, strictly: no field is guessed, and a fault names its place.

import Foundation

/// A document that does not fit its schema; the reason names the field.
struct SchemaError: Error {
    let reason: String
}

/// A JSON value with the path that leads to it.
struct JSONField {
    let value: JSONValue
    let path: String

    func fault(_ reason: String) -> SchemaError {
        SchemaError(reason: "\(path): \(reason)")
    }

    func string() throws(SchemaError) -> String {
        guard case .string(let text) = value else { throw fault("expected a string") }
        return text
    }

    func bool() throws(SchemaError) -> Bool {
        guard case .bool(let flag) = value else { throw fault("expected true or false") }
        return flag
    }

    /// A whole number that is at least `minimum`.
    func whole(from minimum: Int = .min) throws(SchemaError) -> Int {
        guard case .number(let number) = value, let whole = number.whole else {
            throw fault("expected a whole number")
        }
        guard Int(whole) >= minimum else { throw fault("must be \(minimum) or more, got \(whole)") }
        return Int(whole)
    }

    func real() throws(SchemaError) -> Double {
        guard case .number(let number) = value else { throw fault("expected a number") }
        return number.real
    }

    func list() throws(SchemaError) -> [JSONField] {
        guard case .array(let elements) = value else { throw fault("expected a list") }
        return elements.enumerated().map { JSONField(value: $1, path: "\(path)[\($0)]") }
    }

    /// Any object; the members in order.
    func members() throws(SchemaError) -> [(key: ExactName, field: JSONField)] {
        guard case .object(let members) = value else { throw fault("expected an object") }
        return members.map { ($0.key, JSONField(value: $0.value, path: "\(path).\($0.key)")) }
    }

    /// An object with exactly these fields; those of `optional` may be left out.
    func object(_ required: [String], optional: [String] = []) throws(SchemaError) -> JSONObject {
        var fields: [ExactName: JSONField] = [:]
        let known = Set((required + optional).map { ExactName($0) })
        for (key, field) in try members() {
            guard known.contains(key) else { throw field.fault("unknown field") }
            fields[key] = field
        }
        for key in required where fields[ExactName(key)] == nil {
            throw SchemaError(reason: "\(path).\(key): missing")
        }
        return JSONObject(fields: fields)
    }

    /// One of the cases of an enumeration, by its spelling.
    func choice<Choice: RawRepresentable & CaseIterable>(
        _: Choice.Type
    ) throws(SchemaError) -> Choice where Choice.RawValue == String {
        let text = try string()
        guard let choice = Choice.allCases.first(where: { $0.rawValue.isExactly(text) }) else {
            let names = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            throw fault("expected one of \(names), got '\(text)'")
        }
        return choice
    }
}

/// An object whose fields are known to be there.
struct JSONObject {
    fileprivate let fields: [ExactName: JSONField]

    subscript(key: String) -> JSONField { fields[ExactName(key)]! }

    /// nil where the field is left out.
    func given(_ key: String) -> JSONField? {
        fields[ExactName(key)]
    }

    /// nil where the field is left out or null.
    func optional(_ key: String) -> JSONField? {
        guard let field = fields[ExactName(key)], field.value != .null else { return nil }
        return field
    }
}
