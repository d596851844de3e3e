"""When a request has arrived in full: what a worker waits for before it gives it a thread.

Looks only at lengths. Whatever is not plain is called complete, so that gunicorn's parser refuses
it: nothing is accepted here.
"""

import re

MAX_HEAD = 32_768
"""Bytes of request line and headers: above what gunicorn's own limits let pass."""

MAX_BODY = 1_048_576
"""Bytes of a body that are waited for. A longer one gets its thread, and is refused, at once."""

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*(?=\r\n)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*(?=\r\n)", re.IGNORECASE)
_FRAMING = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}(?=\r\n|;)")

_PROBES = (b"GET /readyz ", b"GET /healthz ")
MAX_CHUNKS = 4096
"""Chunks of a body: no client needs so many for so few bytes."""


class TooManyChunksError(ValueError):
    """A body in so many pieces that looking for its end would cost more than it is worth."""


def is_complete(data: bytes) -> bool:
    """Whether this is a request with all of its body, or nothing that is worth waiting for.

    Raises TooManyChunksError.
    """
    head, end, body = data.partition(_END)
    if not end:
        return len(data) > MAX_HEAD
    framing = len(_FRAMING.findall(head))
    if framing != 1 or len(body) > MAX_BODY:
        return True
    if _CHUNKED.search(head + b"\r\n"):
        return body.endswith(b"\r\n\r\n") and _chunks_end(body)
    length = _LENGTH.search(head + b"\r\n")
    return length is None or len(body) >= min(int(length[1]), MAX_BODY)


def is_probe(data: bytes) -> bool:
    """Whether a load balancer asks how the server is: without a body, which could be waited for."""
    return data.startswith(_PROBES) and _FRAMING.search(data) is None


def _chunks_end(body: bytes) -> bool:
    """Whether the last chunk is there, and the empty line after its trailers."""
    position = 0
    for _ in range(MAX_CHUNKS):
        size = _SIZE.match(body, position)
        if size is None:
            return position < len(body)
        line = body.find(b"\r\n", position)
        if int(size[0], 16) == 0:
            return body.find(_END, line) >= 0
        position = line + 2 + int(size[0], 16) + 2
    raise TooManyChunksError


def waits_for_permission(data: bytes) -> bool:
    """Whether the client sends its body only after `100 Continue`."""
    head, end, body = data.partition(_END)
    return bool(end) and not body and _EXPECT.search(head + b"\r\n") is not None


def permitted(data: bytes) -> bytes:
    """The request without its wish to be permitted."""
    head, end, body = data.partition(_END)
    return _EXPECT.sub(b"", head + b"\r\n")[:-2] + end + body
