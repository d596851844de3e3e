// The link behind the QR code of `persona serve`: which cloud, and who publishes its bundles.
//
//     persona://connect?endpoint=http%3A%2F%2F192.168.1.5%3A8080&publisher=5a194e0635a57834

import Foundation

public struct Pairing: Hashable, Sendable {
    public let address: CloudAddress
    /// The id of the key that signs the cloud's bundles, where the link says it.
    public let publisher: String?

    public init(address: CloudAddress, publisher: String?) {
        self.address = address
        self.publisher = publisher
    }

    /// What somebody typed or pasted: a link, or an address without a publisher.
    public init(_ typed: String) throws(AddressFault) {
        let text = typed.trimmingCharacters(in: .whitespacesAndNewlines)
        if text.hasPrefix("persona:"), let link = URL(string: text) {
            try self.init(link: link)
        } else {
            self.init(address: try CloudAddress(text), publisher: nil)
        }
    }

    public init(link: URL) throws(AddressFault) {
        let parts = URLComponents(url: link, resolvingAgainstBaseURL: false)
        let items = parts?.queryItems ?? []
        guard
            parts?.scheme == "persona", parts?.host == "connect",
            let endpoint = items.first(where: { $0.name == "endpoint" })?.value
        else { throw .notAnAddress(link.absoluteString) }
        let publisher = items.first { $0.name == "publisher" }?.value
        guard publisher.map(Self.isKeyID) ?? true else { throw .notAnAddress(link.absoluteString) }
        self.init(address: try CloudAddress(endpoint), publisher: publisher)
    }

    /// 16 lower-case hexadecimal digits.
    private static func isKeyID(_ text: String) -> Bool {
        text.utf8.count == 16 && text.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
    }
}
