/// JSON read strictly (RFC 8259): what two readers could understand differently is refused.
///
/// Repeated keys, numbers beyond binary64, half surrogate pairs, bytes that are not UTF-8 and deep
/// nesting are faults. Numbers keep their spelling, because `3` and `3.0` differ where a whole
/// number is asked for. Specified in docs/edit-format.md, "Strict JSON".

import Foundation

/// The largest whole number that every language's JSON reader holds exactly, 2⁵³ − 1.
public let largestWhole: Int64 = 9_007_199_254_740_991

/// A number as it was written.
public struct JSONNumber: Sendable, Equatable {
    public let spelling: String
    /// The value in binary64.
    public let real: Double

    /// The value where it is a whole number: no fraction, no exponent, not `-0`, within ±(2⁵³ − 1).
    public var whole: Int64? {
        guard spelling != "-0", let value = Int64(spelling), abs(value) <= largestWhole else {
            return nil
        }
        return value
    }

    init(spelling: String, real: Double) {
        self.spelling = spelling
        self.real = real
    }

    public init(_ value: Int) {
        self.init(spelling: String(value), real: Double(value))
    }

    /// A finite number in its shortest spelling that reads back as the same one.
    public init(_ value: Double) {
        precondition(value.isFinite, "JSON has no NaN and no infinity")
        self.init(spelling: "\(value)", real: value)
    }
}

/// A member of an object; an object keeps its members in order.
public struct JSONMember: Sendable, Equatable {
    public let key: ExactName
    public let value: JSONValue

    public init(_ key: String, _ value: JSONValue) {
        self.key = ExactName(key)
        self.value = value
    }
}

/// Any JSON value.
public enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case number(JSONNumber)
    case string(String)
    case array([JSONValue])
    case object([JSONMember])

    /// The member of an object with this key; nil in anything else.
    public subscript(key: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.key == ExactName(key) }?.value
    }

    public static func whole(_ value: Int) -> JSONValue { .number(JSONNumber(value)) }
    public static func real(_ value: Double) -> JSONValue { .number(JSONNumber(value)) }
}

/// Why a text is no strict JSON.
struct StrictJSONError: Error {
    let reason: String
}

/// Reads one document.
struct StrictJSONReader {
    private static let deepest = 64

    private let bytes: [UInt8]
    private var position = 0
    private var repeated: String?

    /// The document in `bytes`. A repeated key is reported after every other fault.
    static func parse(_ bytes: some Sequence<UInt8>) throws(StrictJSONError) -> JSONValue {
        var repeated: String?
        let value = try parse(bytes, repeatedKey: &repeated)
        if let repeated {
            throw StrictJSONError(reason: "'\(repeated)' stands twice in one object")
        }
        return value
    }

    /// The same for readers that have a code of their own for a repeated key: the first of them.
    static func parse(
        _ bytes: some Sequence<UInt8>, repeatedKey: inout String?
    ) throws(StrictJSONError) -> JSONValue {
        var reader = StrictJSONReader(bytes: Array(bytes))
        let value = try reader.value(depth: 1)
        reader.skipSpace()
        guard reader.position == reader.bytes.count else {
            throw reader.malformed("expected the end of the document")
        }
        repeatedKey = reader.repeated
        return value
    }

    private init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    private func malformed(_ message: String) -> StrictJSONError {
        StrictJSONError(reason: "\(message) at byte \(position)")
    }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D {
            position += 1
        }
    }

    private mutating func take(_ byte: Character) -> Bool {
        guard next == byte.asciiValue else { return false }
        position += 1
        return true
    }

    private mutating func value(depth: Int) throws(StrictJSONError) -> JSONValue {
        skipSpace()
        switch next {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return .number(try number())
        }
    }

    private mutating func word(
        _ word: String, _ value: JSONValue
    ) throws(StrictJSONError) -> JSONValue {
        guard bytes[position...].starts(with: word.utf8) else {
            throw malformed("expected a value")
        }
        position += word.utf8.count
        return value
    }

    private mutating func object(depth: Int) throws(StrictJSONError) -> JSONValue {
        try enter(depth)
        var members: [JSONMember] = []
        var keys: Set<ExactName> = []
        if take("}") { return .object(members) }
        repeat {
            skipSpace()
            guard next == UInt8(ascii: "\"") else { throw malformed("expected a key") }
            let key = try string()
            skipSpace()
            guard take(":") else { throw malformed("expected ':'") }
            let element = try value(depth: depth + 1)
            if !keys.insert(ExactName(key)).inserted, repeated == nil {
                repeated = key
            }
            members.append(JSONMember(key, element))
            skipSpace()
        } while take(",")
        guard take("}") else { throw malformed("expected ',' or '}'") }
        return .object(members)
    }

    private mutating func array(depth: Int) throws(StrictJSONError) -> JSONValue {
        try enter(depth)
        var elements: [JSONValue] = []
        if take("]") { return .array(elements) }
        repeat {
            elements.append(try value(depth: depth + 1))
            skipSpace()
        } while take(",")
        guard take("]") else { throw malformed("expected ',' or ']'") }
        return .array(elements)
    }

    /// Past the bracket, to what follows it.
    private mutating func enter(_ depth: Int) throws(StrictJSONError) {
        guard depth <= Self.deepest else {
            throw malformed("arrays and objects are nested deeper than \(Self.deepest)")
        }
        position += 1
        skipSpace()
    }

    private mutating func number() throws(StrictJSONError) -> JSONNumber {
        let start = position
        _ = take("-")
        guard digits() else { throw malformed("expected a value") }
        let first = bytes[start] == UInt8(ascii: "-") ? start + 1 : start
        if bytes[first] == UInt8(ascii: "0"), position - first > 1 {
            throw malformed("a number must not begin with 0")
        }
        if take("."), !digits() { throw malformed("expected digits after the point") }
        if take("e") || take("E") {
            if !take("+") { _ = take("-") }
            guard digits() else { throw malformed("expected digits in the exponent") }
        }
        let spelling = String(decoding: bytes[start..<position], as: UTF8.self)
        guard let real = Double(spelling), real.isFinite else {
            throw malformed("the number is beyond binary64")
        }
        return JSONNumber(spelling: spelling, real: real)
    }

    private mutating func digits() -> Bool {
        let start = position
        while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
            position += 1
        }
        return position > start
    }

    private mutating func string() throws(StrictJSONError) -> String {
        position += 1
        var text: [UInt8] = []
        while let byte = next {
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                // Decoding repairs what is not UTF-8, and so changes the bytes.
                let string = String(decoding: text, as: UTF8.self)
                guard string.utf8.elementsEqual(text) else {
                    throw malformed("a string is not UTF-8")
                }
                return string
            case UInt8(ascii: "\\"):
                text.append(contentsOf: try escape())
            case ..<0x20:
                throw malformed("control characters must be escaped")
            default:
                text.append(byte)
            }
        }
        throw malformed("expected the end of a string")
    }

    private mutating func escape() throws(StrictJSONError) -> [UInt8] {
        guard let byte = next else { throw malformed("expected an escape") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "f"): return [0x0C]
        case UInt8(ascii: "n"): return [0x0A]
        case UInt8(ascii: "r"): return [0x0D]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "u"): return try codePoint()
        default: throw malformed("unknown escape")
        }
    }

    private mutating func codePoint() throws(StrictJSONError) -> [UInt8] {
        var value = try fourDigits()
        if (0xD800..<0xDC00).contains(value), take("\\"), take("u") {
            let low = try fourDigits()
            guard (0xDC00..<0xE000).contains(low) else {
                throw malformed("a string holds half a surrogate pair")
            }
            value = 0x10000 + (value - 0xD800) << 10 + (low - 0xDC00)
        }
        guard let scalar = Unicode.Scalar(value) else {
            throw malformed("a string holds half a surrogate pair")
        }
        return Array(UTF8.encode(scalar)!)
    }

    private mutating func fourDigits() throws(StrictJSONError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue,
                byte < 0x80
            else { throw malformed("expected four hexadecimal digits") }
            value = value << 4 + UInt32(digit)
            position += 1
        }
        return value
    }
}

extension JSONValue {
    /// A number written in digits alone, up to 2⁵³ − 1.
    var plainWhole: Int64? {
        guard case .number(let number) = self, let whole = number.whole, whole >= 0 else {
            return nil
        }
        return whole
    }

    /// Whether every number, wherever it stands, is a plain whole one.
    var hasPlainNumbersOnly: Bool {
        switch self {
        case .number: plainWhole != nil
        case .array(let elements): elements.allSatisfy(\.hasPlainNumbersOnly)
        case .object(let members): members.allSatisfy { $0.value.hasPlainNumbersOnly }
        case .null, .bool, .string: true
        }
    }

    /// The document as UTF-8, without white space.
    public func encoded() -> Data {
        var text = ""
        write(to: &text)
        return Data(text.utf8)
    }

    private func write(to text: inout String) {
        switch self {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .number(let number): text += number.spelling
        case .string(let string): Self.write(string, to: &text)
        case .array(let elements):
            text += "["
            for (index, element) in elements.enumerated() {
                text += index == 0 ? "" : ","
                element.write(to: &text)
            }
            text += "]"
        case .object(let members):
            text += "{"
            for (index, member) in members.enumerated() {
                text += index == 0 ? "" : ","
                Self.write(member.key.text, to: &text)
                text += ":"
                member.value.write(to: &text)
            }
            text += "}"
        }
    }

    private static func write(_ string: String, to text: inout String) {
        text += "\""
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }
}
