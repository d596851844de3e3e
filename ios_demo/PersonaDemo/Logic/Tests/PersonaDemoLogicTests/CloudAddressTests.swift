import Foundation
import Testing

@testable import PersonaDemoLogic

@Suite struct CloudAddressTests {
    @Test(arguments: [
        ("192.168.1.5:8080", "http://192.168.1.5:8080"),
        (" localhost:8080 ", "http://localhost:8080"),
        ("mac-mini.local:8080/", "http://mac-mini.local:8080"),
        ("cloud.example.org", "https://cloud.example.org"),
        ("https://10.0.0.7", "https://10.0.0.7"),
        ("http://[fe80::1]:8080", "http://[fe80::1]:8080"),
    ])
    func whatPeopleTypeBecomesAnAddress(typed: String, url: String) throws {
        #expect(try CloudAddress(typed).url.absoluteString == url)
    }

    @Test(arguments: [
        "10.255.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.1.1", "127.0.0.1",
        "[::1]", "[fd12::1]", "printer", "a.local",
    ])
    func hostsOfTheOwnNetworkMayGoWithoutEncryption(host: String) throws {
        #expect(try CloudAddress("http://\(host):8080").url.scheme == "http")
    }

    @Test(arguments: [
        "example.org", "8.8.8.8", "172.15.0.1", "172.32.0.1", "192.169.0.1", "11.0.0.1",
        "[2001:db8::1]", "local.example.org", "192.168.1.5.example.org", "10.0.0.256",
    ])
    func allOthersNeedIt(host: String) {
        #expect(throws: AddressFault.self) { try CloudAddress("http://\(host)") }
    }

    @Test(arguments: [
        "", "not an address", "ftp://192.168.1.5", "http://", "http://a.local/?q", "localhost:0",
        "localhost:99999", "http://user:secret@a.local", "http://a.local/#x",
    ])
    func whatIsNoAddressIsRefused(typed: String) {
        #expect(throws: AddressFault.notAnAddress(typed)) { try CloudAddress(typed) }
    }

    @Test func aLinkMayBePastedWhereAnAddressIsTyped() throws {
        let link =
            " persona://connect?endpoint=http%3A%2F%2Fa.local%3A8080&publisher=0123456789abcdef"
        #expect(try Pairing(link).publisher == "0123456789abcdef")
        #expect(try Pairing(link).address == CloudAddress("a.local:8080"))
        #expect(try Pairing("a.local:8080").publisher == nil)
        #expect(throws: AddressFault.self) { try Pairing("persona://connect") }
    }

    @Test func aPairingLinkNamesCloudAndPublisher() throws {
        let link =
            "persona://connect?endpoint=http%3A%2F%2F192.168.1.5%3A8080&publisher=5a194e0635a57834"
        let pairing = try Pairing(link: try #require(URL(string: link)))
        #expect(pairing.address.url.absoluteString == "http://192.168.1.5:8080")
        #expect(pairing.publisher == "5a194e0635a57834")
    }

    @Test(arguments: [
        "https://connect?endpoint=a.local", "persona://other?endpoint=a.local", "persona://connect",
        "persona://connect?endpoint=a.local&publisher=5A194E0635A57834",
        "persona://connect?endpoint=a.local&publisher=short",
        "persona://connect?endpoint=http%3A%2F%2Fexample.org",
    ])
    func otherLinksAreRefused(link: String) throws {
        let url = try #require(URL(string: link))
        #expect(throws: AddressFault.self) { try Pairing(link: url) }
    }
}
