"""A worker knows when a request has arrived in full, at whatever byte it is cut."""

import pytest

from persona_cloud.arriving import (
    MAX_BODY,
    MAX_CHUNKS,
    MAX_HEAD,
    TooManyChunksError,
    is_complete,
    is_probe,
    permitted,
    waits_for_permission,
)

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        HEAD + b"\r\n",
        HEAD + b"Content-Length: 5\r\n\r\n12345",
        HEAD + b"content-length:5\r\nX: y\r\n\r\n\r\n\r\n1",
        HEAD + b"Content-Length: 0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n000\r\nName: value\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n7;a=b\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_request_is_complete_with_its_last_byte_and_not_before(request_):
    assert is_complete(request_)
    assert not any(is_complete(request_[:length]) for length in range(len(request_)))


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (MAX_HEAD + 1),
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length : 5\r\n\r\n",
        HEAD + b"Content-Length: 9999999999\r\n\r\n" + bytes(MAX_BODY),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + bytes(MAX_BODY + 1),
    ],
)
def test_what_the_parser_refuses_anyway_is_not_waited_for(data):
    assert is_complete(data)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000000000", b"transfer-encoding: x"])
def test_a_probe_with_a_body_to_wait_for_is_none(framing):
    for path in (b"/healthz", b"/readyz"):
        request = b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n"
        assert is_probe(request + b"\r\n")
        assert not is_probe(request + framing + b"\r\n\r\n")


def test_a_body_in_too_many_pieces_is_given_up():
    pieces = b"1\r\nx\r\n" * MAX_CHUNKS + b"0\r\n\r\n"
    with pytest.raises(TooManyChunksError):
        is_complete(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + pieces)


def test_a_client_that_asks_before_it_sends_is_answered_once():
    asked = HEAD + b"Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n"
    assert waits_for_permission(asked)
    assert not any(waits_for_permission(asked[:length]) for length in range(len(asked)))
    assert permitted(asked) == HEAD + b"Content-Length: 5\r\n\r\n"
    assert not waits_for_permission(permitted(asked))
    last = HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    assert permitted(last) == HEAD + b"Content-Length: 5\r\n\r\n"
