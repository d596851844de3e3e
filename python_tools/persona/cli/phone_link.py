"""The link that opens a demo app with a cloud, and its QR code for a phone's camera."""

import socket
import sys
from urllib.parse import quote, urlsplit, urlunsplit

import segno

_EVERYWHERE = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}
"""Hosts that mean every address; beside each, one to ask which of ours would be used."""


def deep_link(url: str, publisher: str) -> str:
    """The link for a cloud at `url`: `persona://connect?endpoint=URL&publisher=ID`.

    publisher: id of the key that signs the cloud's bundles, so that an app can say whom it trusts.
    """
    return f"persona://connect?endpoint={quote(url, safe='')}&publisher={publisher}"


def reachable_from_phones(url: str, host: str) -> str:
    """The URL with an address of this machine that its network knows, where it listens on all."""
    if host not in _EVERYWHERE:
        return url
    address = _own_address(_EVERYWHERE[host]) or urlsplit(url).hostname or ""
    shown = f"[{address}]" if ":" in address else address
    return urlunsplit(urlsplit(url)._replace(netloc=f"{shown}:{urlsplit(url).port}"))


def _own_address(other: str) -> str | None:
    """Our address on the way to another; nothing is sent."""
    family = socket.AF_INET6 if ":" in other else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((other, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def print_qr(link: str) -> None:
    """Print a link with its code, light on dark as terminals are; only the link where no person
    looks on.
    """
    if sys.stdout.isatty():
        segno.make(link, error="m", micro=False).terminal(out=sys.stdout, compact=True, border=2)
    sys.stdout.write(f"{link}\n")
    sys.stdout.flush()
