"""`persona serve` prints a link and its QR code that open a demo app with this cloud."""

import io
import socket
from urllib.parse import parse_qs, urlsplit

import segno

from persona.cli import phone_link
from persona.cli.phone_link import deep_link, print_qr, reachable_from_phones

URL = "http://192.168.1.5:8080"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_link_names_the_cloud_and_its_publisher():
    link = urlsplit(deep_link(URL, "5a194e0635a57834"))
    assert (link.scheme, link.netloc) == ("persona", "connect")
    assert parse_qs(link.query) == {"endpoint": [URL], "publisher": ["5a194e0635a57834"]}


def test_a_terminal_shows_the_code_of_the_link(monkeypatch):
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    link = deep_link(URL, "5a194e0635a57834")
    print_qr(link)
    assert terminal.getvalue().endswith(f"{link}\n")
    shown = [line for line in terminal.getvalue().splitlines() if set(line) & set("█▀▄")]
    size = segno.make(link, error="m", micro=False).symbol_size(border=2)
    assert {len(line) for line in shown} == {size[0]}
    assert len(shown) * 2 in (size[1], size[1] + 1)


def test_a_program_that_reads_the_output_gets_the_link_alone(capsys):
    print_qr(deep_link(URL, "5a194e0635a57834"))
    assert capsys.readouterr().out == f"{deep_link(URL, '5a194e0635a57834')}\n"


def test_a_cloud_on_all_addresses_is_shown_with_one_that_phones_reach(monkeypatch):
    monkeypatch.setattr(phone_link, "_own_address", lambda _: "10.0.0.7")
    assert reachable_from_phones("http://127.0.0.1:81", "0.0.0.0") == "http://10.0.0.7:81"
    monkeypatch.setattr(phone_link, "_own_address", lambda _: "fd00::7")
    assert reachable_from_phones("http://[::1]:81", "::") == "http://[fd00::7]:81"
    assert reachable_from_phones(URL, "192.168.1.5") == URL


def test_without_a_network_the_address_stays(monkeypatch):
    def unreachable(*_):
        raise OSError

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    assert reachable_from_phones("http://127.0.0.1:81", "0.0.0.0") == "http://127.0.0.1:81"
