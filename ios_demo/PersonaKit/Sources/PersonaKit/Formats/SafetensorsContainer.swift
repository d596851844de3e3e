/// The safetensors container, read strictly: header, then tensor bytes without hole or overlap.
///
/// Any safetensors library opens what `encoded()` writes. Reading refuses more than those libraries
/// do, in a fixed order, so that three languages give the same verdict. Specified in
/// docs/edit-format.md, "Container".

import Foundation

/// The type of a tensor's elements, by its name in the file.
public enum ElementType: String, Sendable {
    case bool = "BOOL"
    case u8 = "U8"
    case i8 = "I8"
    case f8e5m2 = "F8_E5M2"
    case f8e4m3 = "F8_E4M3"
    case i16 = "I16"
    case u16 = "U16"
    case f16 = "F16"
    case bf16 = "BF16"
    case i32 = "I32"
    case u32 = "U32"
    case f32 = "F32"
    case f64 = "F64"
    case i64 = "I64"
    case u64 = "U64"

    var bytes: Int64 {
        switch self {
        case .bool, .u8, .i8, .f8e5m2, .f8e4m3: 1
        case .i16, .u16, .f16, .bf16: 2
        case .i32, .u32, .f32: 4
        case .f64, .i64, .u64: 8
        }
    }
}

/// A tensor as the container holds it: little-endian bytes, row by row.
public struct StoredTensor: Sendable, Equatable {
    public let dtype: ElementType
    public let shape: [Int]
    public let data: Data

    public init(dtype: ElementType, shape: [Int], data: Data) {
        self.dtype = dtype
        self.shape = shape
        self.data = data
    }

    public init(_ tensor: FloatTensor) {
        var data = Data(capacity: 4 * tensor.values.count)
        for value in tensor.values {
            withUnsafeBytes(of: value.bitPattern.littleEndian) { data.append(contentsOf: $0) }
        }
        self.init(dtype: .f32, shape: tensor.shape, data: data)
    }

    public init(_ tensor: IntTensor) {
        var data = Data(capacity: 8 * tensor.values.count)
        for value in tensor.values {
            withUnsafeBytes(of: value.littleEndian) { data.append(contentsOf: $0) }
        }
        self.init(dtype: .i64, shape: tensor.shape, data: data)
    }

    /// F16 and F32 values, exactly; nil for other dtypes.
    public var floats: FloatTensor? {
        switch dtype {
        case .f32:
            FloatTensor(
                shape: shape,
                values: elements(UInt32.self).map { Float(bitPattern: UInt32(littleEndian: $0)) }
            )
        case .f16:
            FloatTensor(
                shape: shape,
                values: elements(UInt16.self).map { Half.widened(UInt16(littleEndian: $0)) }
            )
        default:
            nil
        }
    }

    /// I64 values; nil for other dtypes.
    public var integers: IntTensor? {
        guard dtype == .i64 else { return nil }
        let values = elements(Int64.self).map { Int64(littleEndian: $0) }
        return IntTensor(shape: shape, values: values)
    }

    /// Tensors may begin at any byte, so values are loaded unaligned.
    private func elements<Element: BitwiseCopyable>(_: Element.Type) -> [Element] {
        let size = MemoryLayout<Element>.size
        return data.withUnsafeBytes { bytes in
            (0..<bytes.count / size).map {
                bytes.loadUnaligned(fromByteOffset: $0 * size, as: Element.self)
            }
        }
    }
}

/// Named tensors with string metadata.
public struct SafetensorsContainer: Sendable, Equatable {
    /// The longest header that a reader accepts in an edit or observation.
    public static let longestHeader = 65_536
    /// The longest header in a bundle's tensor files: about ten thousand tensors.
    public static let longestBundleHeader = 1 << 20

    private static let mostDimensions = 8

    public var metadata: [ExactName: String]
    public var tensors: [ExactName: StoredTensor]
    /// Names in the order in which `encoded()` writes them.
    private var order: [ExactName]

    public init(metadata: KeyValuePairs<String, String>, tensors: [(String, StoredTensor)]) {
        self.metadata = [:]
        for (key, value) in metadata {
            self.metadata[ExactName(key)] = value
        }
        self.tensors = [:]
        order = []
        for (name, tensor) in tensors {
            self.tensors[ExactName(name)] = tensor
            order.append(ExactName(name))
        }
    }

    /// Read a file. Throws the first rule that it breaks, with a `container.*` code.
    public init(
        decoding file: Data, longestHeader: Int = SafetensorsContainer.longestHeader
    ) throws(FormatError) {
        let (header, start) = try Self.header(of: file, longest: longestHeader)
        metadata = [:]
        tensors = [:]
        var entries: [Entry] = []
        for member in header {
            if member.key == "__metadata__" {
                metadata = try Self.readMetadata(member.value)
            } else {
                entries.append(try Entry(name: member.key, fields: member.value))
            }
        }
        entries.sort { ($0.begin, $0.end, $0.name) < ($1.begin, $1.end, $1.name) }
        try Self.checkLayout(entries, size: Int64(file.count - start))
        order = entries.map(\.name)
        let data = file.dropFirst(start)
        for entry in entries {
            let first = data.startIndex + Int(entry.begin)
            tensors[entry.name] = StoredTensor(
                dtype: entry.dtype,
                shape: entry.shape,
                data: data.subdata(in: first..<data.startIndex + Int(entry.end))
            )
        }
    }

    private struct Entry {
        let name: ExactName
        let dtype: ElementType
        let shape: [Int]
        let begin: Int64
        let end: Int64

        init(name: ExactName, fields: JSONValue) throws(FormatError) {
            guard case .object(let members) = fields, members.count == 3,
                case .string(let type)? = fields["dtype"],
                case .array(let shape)? = fields["shape"],
                case .array(let offsets)? = fields["data_offsets"]
            else { throw invalid("'\(name)' must have exactly dtype, shape and data_offsets") }
            guard let dtype = ElementType(rawValue: type) else {
                throw invalid("dtype of '\(name)' is '\(type)', which is not known")
            }
            let sizes = shape.compactMap(\.plainWhole)
            let ends = offsets.compactMap(\.plainWhole)
            guard sizes.count == shape.count, shape.count <= mostDimensions else {
                throw invalid("shape of '\(name)' must be up to \(mostDimensions) whole numbers")
            }
            guard offsets.count == 2, ends.count == 2, ends[0] <= ends[1] else {
                throw invalid("data_offsets of '\(name)' must be [begin, end]")
            }
            self.name = name
            self.dtype = dtype
            self.shape = sizes.map(Int.init)
            begin = ends[0]
            end = ends[1]
        }

        /// Bytes of the tensor; nil where dtype × dimensions that are not 0 exceed 2⁵³ − 1.
        var size: Int64? {
            var product = dtype.bytes
            for dimension in shape where dimension != 0 {
                guard product <= largestWhole / Int64(dimension) else { return nil }
                product *= Int64(dimension)
            }
            return shape.contains(0) ? 0 : product
        }
    }

    private static func header(
        of file: Data, longest: Int
    ) throws(FormatError) -> ([JSONMember], Int) {
        guard file.count >= 8 else {
            throw FormatError(
                .containerTruncated,
                "expected 8 bytes of header length, got \(file.count) bytes"
            )
        }
        let length = file.withUnsafeBytes {
            UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self))
        }
        guard length <= UInt64(longest) else {
            throw FormatError(
                .containerHeaderTooLong,
                "the header says it has \(length) bytes; at most \(longest) are allowed"
            )
        }
        let start = 8 + Int(length)
        guard file.count >= start else {
            throw FormatError(
                .containerTruncated,
                "the header wants \(length) bytes, but \(file.count - 8) follow; "
                    + "fetch the file again"
            )
        }
        let text = file.dropFirst(8).prefix(Int(length))
        guard text.first == UInt8(ascii: "{") else {
            throw invalid("the header must be a JSON object and begin with '{'")
        }
        return (try members(of: text), start)
    }

    private static func members(of text: Data) throws(FormatError) -> [JSONMember] {
        let document: JSONValue
        var repeated: String?
        do {
            document = try StrictJSONReader.parse(text, repeatedKey: &repeated)
        } catch {
            throw invalid("the header is not JSON in UTF-8: \(error.reason)")
        }
        guard document.hasPlainNumbersOnly else {
            throw invalid("numbers of the header must be written in digits alone, up to 2^53 - 1")
        }
        if let repeated {
            throw FormatError(.containerDuplicateKey, "'\(repeated)' stands twice in one object")
        }
        guard case .object(let members) = document else {
            throw invalid("the header must be a JSON object")
        }
        return members
    }

    private static func readMetadata(
        _ value: JSONValue
    ) throws(FormatError) -> [ExactName: String] {
        guard case .object(let members) = value else {
            throw invalid("__metadata__ must map strings to strings")
        }
        var metadata: [ExactName: String] = [:]
        for member in members {
            guard case .string(let text) = member.value else {
                throw invalid("__metadata__ must map strings to strings")
            }
            metadata[member.key] = text
        }
        return metadata
    }

    /// Sizes, bounds, then overlap and hole: each for all tensors before the next.
    private static func checkLayout(_ entries: [Entry], size: Int64) throws(FormatError) {
        for entry in entries where entry.size != entry.end - entry.begin {
            throw FormatError(
                .containerSizeMismatch,
                "'\(entry.name)' of type \(entry.dtype.rawValue) and shape \(entry.shape) does not "
                    + "take the \(entry.end - entry.begin) bytes that its data_offsets give"
            )
        }
        for entry in entries where entry.end > size {
            throw FormatError(
                .containerOutOfBounds, "'\(entry.name)' ends at byte \(entry.end) of \(size)"
            )
        }
        var position: Int64 = 0
        for entry in entries {
            guard entry.begin >= position else {
                throw FormatError(
                    .containerOverlap,
                    "'\(entry.name)' begins at \(entry.begin), inside the tensor before it"
                )
            }
            guard entry.begin <= position else {
                throw FormatError(
                    .containerHole,
                    "bytes \(position) to \(entry.begin) belong to no tensor"
                )
            }
            position = entry.end
        }
        guard position == size else {
            throw FormatError(
                .containerTrailingBytes,
                "\(size - position) bytes follow the last tensor"
            )
        }
    }

    private static func invalid(_ message: String) -> FormatError {
        FormatError(.containerHeaderInvalid, message)
    }

    /// The file's bytes: tensors in the order given, the header padded to whole 8 bytes.
    public func encoded() -> Data {
        var members: [JSONMember] = []
        if !metadata.isEmpty {
            let pairs = metadata.sorted { $0.key < $1.key }
            members.append(
                JSONMember(
                    "__metadata__",
                    .object(pairs.map { JSONMember($0.key.text, .string($0.value)) })
                )
            )
        }
        var offset = 0
        var data = Data()
        for name in order {
            guard let tensor = tensors[name] else { continue }
            let end = offset + tensor.data.count
            members.append(
                JSONMember(
                    name.text,
                    .object([
                        JSONMember("dtype", .string(tensor.dtype.rawValue)),
                        JSONMember("shape", .array(tensor.shape.map(JSONValue.whole))),
                        JSONMember("data_offsets", .array([.whole(offset), .whole(end)])),
                    ])
                )
            )
            data.append(tensor.data)
            offset = end
        }
        var header = JSONValue.object(members).encoded()
        header.append(contentsOf: Array(repeating: 0x20, count: (8 - header.count % 8) % 8))
        var file = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Data($0) }
        file.append(header)
        file.append(data)
        return file
    }
}
