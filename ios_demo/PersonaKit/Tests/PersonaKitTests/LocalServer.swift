import Foundation

/// A real HTTP server on this machine that answers with what it was given, one answer a request,
/// and keeps what it was asked.
final class LocalServer: @unchecked Sendable {
    struct Answer {
        var status = 200
        var headers: [String: String] = [:]
        var body = ""
        /// The body where it is no text.
        var bytes: Data?
        /// Close the connection without a word.
        var hangsUp = false
    }

    private let socket: Int32
    private let lock = NSLock()
    private var answers: [Answer]
    private var seen: [String] = []
    let url: String

    init(_ answers: [Answer]) throws {
        self.answers = answers
        #if canImport(Darwin)
            let kind = SOCK_STREAM
        #else
            let kind = Int32(SOCK_STREAM.rawValue)
        #endif
        let socket = Self.systemSocket(AF_INET, kind, 0)
        self.socket = socket
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(socket, $0, length) == 0 && listen(socket, 16) == 0
                    && getsockname(socket, $0, &length) == 0
            }
        }
        guard bound else { throw POSIXError(.EADDRNOTAVAIL) }
        url = "http://127.0.0.1:\(UInt16(bigEndian: address.sin_port))"
        Thread.detachNewThread { [self] in
            while serveOne() {}
        }
    }

    /// Whole requests as they came: head and body.
    var requests: [String] { lock.withLock { seen } }

    private static func systemSocket(_ domain: Int32, _ kind: Int32, _ proto: Int32) -> Int32 {
        #if canImport(Darwin)
            Darwin.socket(domain, kind, proto)
        #else
            Glibc.socket(domain, kind, proto)
        #endif
    }

    private func serveOne() -> Bool {
        let connection = accept(socket, nil, nil)
        guard connection >= 0 else { return false }
        defer { close(connection) }
        let request = read(connection)
        let answer: Answer = lock.withLock {
            seen.append(request)
            return answers.isEmpty ? Answer(status: 500) : answers.removeFirst()
        }
        if !answer.hangsUp {
            var head = "HTTP/1.1 \(answer.status) X\r\nConnection: close\r\n"
            let body = answer.bytes ?? Data(answer.body.utf8)
            head += "Content-Length: \(body.count)\r\n"
            for (name, value) in answer.headers {
                head += "\(name): \(value)\r\n"
            }
            let bytes = Array((head + "\r\n").utf8) + body
            _ = send(connection, bytes, bytes.count, 0)
        }
        return lock.withLock { !answers.isEmpty }
    }

    private func read(_ connection: Int32) -> String {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(connection, &buffer, buffer.count, 0)
            guard count > 0 else { break }
            bytes += buffer[..<count]
            let text = String(decoding: bytes, as: UTF8.self)
            guard let end = text.range(of: "\r\n\r\n") else { continue }
            let head = text[..<end.lowerBound].lowercased()
            let wanted = head.firstRange(of: "content-length: ").flatMap { found in
                Int(head[found.upperBound...].prefix { $0.isNumber })
            }
            let body = text[end.upperBound...].utf8.count
            if body >= wanted ?? 0 { break }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    deinit {
        close(socket)
    }
}

extension String {
    /// The value of a header in a request.
    func header(_ name: String) -> String? {
        components(separatedBy: "\r\n").first {
            $0.lowercased().hasPrefix("\(name.lowercased()):")
        }?
        .split(separator: ":", maxSplits: 1).last?.trimmingCharacters(in: .whitespaces)
    }
}
