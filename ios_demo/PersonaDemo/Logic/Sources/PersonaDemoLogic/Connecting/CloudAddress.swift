// Where a cloud answers, as somebody typed it or a pairing link carries it.
//
// Without encryption only hosts of the own network are allowed: a token must not cross the internet
// in the clear.

import Foundation

public enum AddressFault: Error, Hashable {
    case notAnAddress(String)
    /// Plain http to a host that is not in the own network.
    case needsEncryption(host: String)
}

public struct CloudAddress: Hashable, Sendable {
    public let url: URL

    /// Without a scheme, hosts of the own network get `http`, all others `https`.
    public init(_ typed: String) throws(AddressFault) {
        let text = typed.trimmingCharacters(in: .whitespacesAndNewlines)
        let complete = text.contains("://") ? text : "http://\(text)"
        guard
            var parts = URLComponents(string: complete),
            let scheme = parts.scheme?.lowercased(), ["http", "https"].contains(scheme),
            let host = parts.host, !host.isEmpty, host.allSatisfy({ !$0.isWhitespace }),
            (1...65_535).contains(parts.port ?? 443),
            parts.user == nil, parts.password == nil, parts.query == nil, parts.fragment == nil
        else { throw .notAnAddress(text) }
        let local = LocalHost.contains(host)
        if scheme == "http", !local, text.contains("://") {
            throw .needsEncryption(host: host)
        }
        parts.scheme = local ? scheme : "https"
        while parts.path.hasSuffix("/") { parts.path.removeLast() }
        guard let url = parts.url else { throw .notAnAddress(text) }
        self.url = url
    }

    /// For people: without the scheme where it says nothing new.
    public var text: String {
        url.absoluteString.replacingOccurrences(of: "http://", with: "")
    }
}

/// Names and numbers that do not leave the own network.
enum LocalHost {
    static func contains(_ host: String) -> Bool {
        let name = host.lowercased().trimmingCharacters(in: CharacterSet(charactersIn: "[]"))
        if name.contains(":") { return isLocalIPv6(name) }
        if let bytes = ipv4(name) { return isLocalIPv4(bytes) }
        return name.hasSuffix(".local") || !name.contains(".")
    }

    private static func ipv4(_ text: String) -> [UInt8]? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        let bytes = parts.compactMap { UInt8($0) }
        return parts.count == 4 && bytes.count == 4 ? bytes : nil
    }

    /// Loopback, RFC 1918 and link-local.
    private static func isLocalIPv4(_ bytes: [UInt8]) -> Bool {
        switch (bytes[0], bytes[1]) {
        case (127, _), (10, _), (192, 168), (169, 254): true
        case (172, 16...31): true
        default: false
        }
    }

    /// Loopback, fe80::/10 and fc00::/7.
    private static func isLocalIPv6(_ text: String) -> Bool {
        if text == "::1" { return true }
        guard let head = text.split(separator: ":").first, let word = UInt16(head, radix: 16) else {
            return false
        }
        return word & 0xFFC0 == 0xFE80 || word & 0xFE00 == 0xFC00
    }
}
