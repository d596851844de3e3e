// A stand-in for the Swift module `ExecuTorch` of ExecuTorch's Apple package, over the C++ runtime of
// its Linux wheel: the part of its API that PersonaKit uses, with the same signatures, so that
// `ExecuTorchEngine` compiles unchanged and runs real programs here.

import CExecuTorch

public struct ExecuTorchError: Error, CustomStringConvertible {
    public let code: Int32

    public var description: String { "ExecuTorch's error \(code)" }
}

public protocol Scalar {
    static var dataType: Int32 { get }
}

extension Float: Scalar {
    public static var dataType: Int32 { Int32(et_float) }
}

extension Int64: Scalar {
    public static var dataType: Int32 { Int32(et_long) }
}

public protocol ValueConvertible {
    func asValue() -> Value
}

/// Elements at a place of their own, which does not move while a program is bound to it.
final class Storage {
    let dataType: Int32
    let sizes: UnsafeMutableBufferPointer<Int64>
    let bytes: UnsafeMutableRawBufferPointer

    init(dataType: Int32, shape: [Int], bytes source: UnsafeRawBufferPointer) {
        self.dataType = dataType
        sizes = .allocate(capacity: shape.count)
        _ = sizes.initialize(from: shape.map(Int64.init))
        bytes = .allocate(byteCount: source.count, alignment: 16)
        bytes.copyMemory(from: source)
    }

    deinit {
        sizes.deallocate()
        bytes.deallocate()
    }

    var shape: [Int] { sizes.map(Int.init) }

    var tensor: et_tensor {
        et_tensor(
            dtype: dataType, sizes: sizes.baseAddress, rank: sizes.count,
            data: UnsafeRawPointer(bytes.baseAddress)
        )
    }
}

public final class Tensor<T: Scalar>: ValueConvertible {
    let storage: Storage

    public init(_ scalars: [T], shape: [Int]) {
        storage = scalars.withUnsafeBytes {
            Storage(dataType: T.dataType, shape: shape, bytes: $0)
        }
    }

    init(_ storage: Storage) {
        self.storage = storage
    }

    public var shape: [Int] { storage.shape }

    public func scalars() -> [T] { Array(storage.bytes.bindMemory(to: T.self)) }

    public func asValue() -> Value { Value(self) }
}

public final class Value: ValueConvertible {
    let storage: Storage

    public init<T: Scalar>(_ tensor: Tensor<T>) {
        storage = tensor.storage
    }

    init(_ storage: Storage) {
        self.storage = storage
    }

    public func tensor<T: Scalar>() -> Tensor<T>? {
        storage.dataType == T.dataType ? Tensor(storage) : nil
    }

    public func asValue() -> Value { self }
}

public struct MethodMetadata {
    public let backendNames: [String]
}

public final class Module {
    private let module: OpaquePointer
    private var bound: [String: [Int: Value]] = [:]

    public init(filePath: String) {
        module = et_module_open(filePath)
    }

    deinit {
        et_module_close(module)
    }

    public func load(_ method: String) throws {
        try check(et_load_method(module, method))
    }

    public func methodNames() throws -> Set<String> {
        Set(try names { et_method_names(module, $0) })
    }

    public func methodMetadata(_ method: String) throws -> MethodMetadata {
        try load(method)
        return MethodMetadata(backendNames: try names { et_backend_names(module, method, $0) })
    }

    public func setInput(_ value: ValueConvertible, for method: String, at index: Int) throws {
        let value = value.asValue()
        try check(et_set_input(module, method, value.storage.tensor, index))
        bound[method, default: [:]][index] = value
    }

    public func execute(_ method: String, _ inputs: [ValueConvertible]) throws -> [Value] {
        let values = inputs.map { $0.asValue() }
        let error = withExtendedLifetime(values) {
            et_execute(module, method, values.map(\.storage.tensor), values.count)
        }
        try check(error)
        return try (0..<et_output_count(module)).map(output)
    }

    private func output(_ index: Int) throws -> Value {
        var dtype: Int32 = 0
        var sizes = [Int64](repeating: 0, count: 16)
        var rank = 0
        var data: UnsafeRawPointer?
        try check(et_output(module, index, &dtype, &sizes, &rank, &data))
        let shape = sizes.prefix(rank).map(Int.init)
        let width = dtype == Float.dataType ? 4 : 8
        let bytes = UnsafeRawBufferPointer(start: data, count: shape.reduce(width, *))
        return Value(Storage(dataType: dtype, shape: shape, bytes: bytes))
    }

    private func names(
        _ read: (UnsafeMutablePointer<Int>) -> UnsafeMutablePointer<CChar>?
    ) throws -> [String] {
        var count = 0
        guard let all = read(&count) else { throw ExecuTorchError(code: -1) }
        defer { all.deallocate() }
        var names: [String] = []
        var next = UnsafePointer(all)
        for _ in 0..<count {
            let name = String(cString: next)
            names.append(name)
            next += name.utf8.count + 1
        }
        return names
    }

    private func check(_ code: Int32) throws {
        guard code == 0 else { throw ExecuTorchError(code: code) }
    }
}
