package dev.persona.checks

import dev.persona.demo.session.Endpoint

/** Which addresses the app takes: https anywhere, http only to private ones and in a debug build. */
internal fun checkAddresses() {
    for (address in PRIVATE) {
        expect(Endpoint.of(address, debug = true) is Endpoint.Usable, "$address is taken by a debug build")
        val refused = Endpoint.of(address, debug = false)
        expect(refused == Endpoint.Refusal.CLEARTEXT_IN_RELEASE, "$address is refused by a release build")
    }
    for (address in PUBLIC) {
        val refused = Endpoint.of(address, debug = true)
        expect(refused == Endpoint.Refusal.CLEARTEXT_TO_PUBLIC, "$address is refused, got $refused")
    }
    for (address in NONE) {
        val refused = Endpoint.of(address, debug = true)
        expect(refused == Endpoint.Refusal.NOT_AN_ADDRESS, "$address is no address, got $refused")
    }
    val safe = Endpoint.of("https://persona.example.org/", debug = false)
    expect(safe == Endpoint.Usable("https://persona.example.org"), "https is taken everywhere, got $safe")
    val linked = Endpoint.of("persona://connect?endpoint=http%3A%2F%2F192.168.1.20%3A8080", debug = true)
    expect(linked == Endpoint.Usable("http://192.168.1.20:8080"), "a link's address is read, got $linked")
    val named = Endpoint.of("persona://connect?endpoint=https%3A%2F%2Fa.example&publisher=5a194e0635a57834", debug = false)
    expect(named == Endpoint.Usable("https://a.example", "5a194e0635a57834"), "a link's publisher is read, got $named")
}

private val PRIVATE = listOf(
    "192.168.1.20:8080",
    "http://10.0.2.2:8765",
    "http://172.16.0.1",
    "http://172.31.255.254",
    "http://127.0.0.1:8080",
    "http://localhost:8080",
    "http://169.254.7.7",
    "http://[fd12:3456::1]:8080",
    "http://[::1]:8080",
)

private val PUBLIC = listOf(
    "http://8.8.8.8:8080",
    "http://172.32.0.1",
    "http://192.169.1.1",
    "http://192.168.1.20.example.org",
    "http://10.example.org",
    "http://010.0.0.1",
    "http://[2001:db8::1]:8080",
    "http://[fc::1]",
    "http://persona.example.org",
)

private val NONE = listOf(
    "",
    "http://",
    "ftp://192.168.1.20",
    "http://10.0.0.1@example.org",
    "http://192.168.1.20:99999",
    "http://192.168.1.20/?a=b",
    "persona://connect?endpoint=%zz",
    "persona://connect?endpoint=https%3A%2F%2Fa.example&publisher=",
    "persona://connect?endpoint=https%3A%2F%2Fa.example&publisher=%zz",
    "persona://connect?endpoint=https%3A%2F%2Fa.example&publisher=5A194E0635A57834",
)
